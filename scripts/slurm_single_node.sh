#!/usr/bin/env bash
# A SLURM cluster of one: this machine, on the loopback interface, for trying the SLURM profile without a cluster.
#
#   scripts/slurm_single_node.sh start     needs root and the packages slurm-wlm and munge
#   scripts/slurm_single_node.sh status
#   scripts/slurm_single_node.sh stop      cancels its jobs, ends its daemons, removes what start made
#
# State, keys, logs and pid files live in one folder of its own. Only the configuration has to be in /etc/slurm: the
# Snakemake plugin hides SLURM_CONF from its jobs, so clients inside a job look nowhere else. A machine that already
# has a configuration is somebody's cluster, and is left alone.
set -euo pipefail

readonly HOME_DIR=/var/lib/slurm-single-node
readonly CONF_DIR=/etc/slurm
readonly MARK='# Written by slurm_single_node.sh; its stop command removes this file.'
readonly CTLD_PORT=26817 SLURMD_PORT=26818
PATH=$PATH:/usr/sbin:/sbin

die() {
  printf 'slurm_single_node: %s\n' "$*" >&2
  exit 1
}

check_machine() {
  local tool file
  [ "$(id -u)" -eq 0 ] || die "only root can start SLURM's daemons"
  for tool in slurmctld slurmd munged setsid; do
    command -v "$tool" >/dev/null || die "$tool is not installed (Debian, Ubuntu: apt-get install slurm-wlm munge)"
  done
  for file in slurm.conf cgroup.conf gres.conf; do
    if [ -e "$CONF_DIR/$file" ] && ! is_ours "$CONF_DIR/$file"; then
      die "$CONF_DIR/$file was not written by this script: this machine belongs to a cluster, nothing was touched"
    fi
  done
}

is_ours() { [ "$(head -n 1 "$1" 2>/dev/null)" = "$MARK" ]; }

# Whether the daemon started as $1 still lives. The name guards against a pid that was given to another process.
is_alive() {
  local pid
  pid=$(cat "$HOME_DIR/$1.pid" 2>/dev/null) || return 1
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ]
}

launch() {
  local name=$1
  shift
  setsid "$name" "$@" </dev/null >"$HOME_DIR/$name.log" 2>&1 &
  echo $! >"$HOME_DIR/$name.pid"
}

write_configuration() {
  local host memory_mb
  host=$(hostname -s)
  memory_mb=$(awk '/^MemTotal/ { print int($2 * 0.9 / 1024) }' /proc/meminfo)
  mkdir -p "$CONF_DIR"
  # No cgroups, no accounting: both need a system that a container is not.
  cat >"$CONF_DIR/slurm.conf" <<EOF
$MARK
ClusterName=single
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$CTLD_PORT
SlurmdPort=$SLURMD_PORT
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$HOME_DIR/munge.socket
StateSaveLocation=$HOME_DIR/state
SlurmdSpoolDir=$HOME_DIR/spool
SlurmctldPidFile=$HOME_DIR/slurmctld.own.pid
SlurmdPidFile=$HOME_DIR/slurmd.own.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
# A finished job stays visible to squeue for as long as a workflow may wait between two looks.
MinJobAge=600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$memory_mb State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
  printf '%s\nCgroupPlugin=cgroup/v1\nIgnoreSystemd=yes\n' "$MARK" >"$CONF_DIR/cgroup.conf"
}

start() {
  check_machine
  if is_alive slurmctld; then die "already running; stop it first"; fi
  [ ! -e "$HOME_DIR" ] || stop
  mkdir -m 755 "$HOME_DIR"
  mkdir -m 755 "$HOME_DIR/state" "$HOME_DIR/spool"
  (umask 077 && head -c 128 /dev/urandom >"$HOME_DIR/munge.key")
  write_configuration

  # A munge of its own, with its own key: nobody else's service is used or disturbed.
  launch munged --foreground --force --key-file="$HOME_DIR/munge.key" --socket="$HOME_DIR/munge.socket" \
    --pid-file="$HOME_DIR/munged.own.pid" --seed-file="$HOME_DIR/munge.seed" --log-file="$HOME_DIR/munged.own.log"
  wait_for 10 munge --no-input --socket="$HOME_DIR/munge.socket"
  launch slurmctld -D
  launch slurmd -D
  wait_for 30 node_is_idle
  echo "SLURM is up: partition debug, $(nproc --all) cores; stop it with $0 stop"
}

node_is_idle() { [ "$(timeout 5 sinfo --noheader --format=%T 2>/dev/null)" = idle ]; }

wait_for() {
  local seconds=$1
  shift
  local deadline=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 5 "$HOME_DIR"/*.log >&2 || true
      stop
      die "'$*' did not succeed within $seconds s; last lines of the logs above"
    fi
    sleep 0.2
  done
}

stop() {
  local name file
  [ "$(id -u)" -eq 0 ] || die "only root can stop it"
  if is_alive slurmctld && is_ours "$CONF_DIR/slurm.conf"; then
    timeout 10 squeue --noheader --format=%A | xargs --no-run-if-empty timeout 10 scancel || true
  fi
  for name in slurmd slurmctld munged; do end "$name"; done
  for file in slurm.conf cgroup.conf; do
    if is_ours "$CONF_DIR/$file"; then rm -f "$CONF_DIR/$file"; fi
  done
  rm -rf "$HOME_DIR"
}

end() {
  local pid deadline
  is_alive "$1" || return 0
  pid=$(cat "$HOME_DIR/$1.pid")
  kill "$pid" 2>/dev/null || return 0
  deadline=$((SECONDS + 10))
  while is_alive "$1"; do
    if [ "$SECONDS" -ge "$deadline" ]; then kill -9 "$pid" 2>/dev/null || true; fi
    sleep 0.1
  done
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  status)
    is_alive slurmctld || die "not running"
    sinfo && squeue
    ;;
  *) die "usage: $0 start|status|stop" ;;
esac
