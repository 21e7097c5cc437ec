"""The unlearning losses by name: import paths, so that planning stays free of torch."""

LOSSES = {
    "ga": "shared.text.losses.gradient:ga",
    "gd": "shared.text.losses.gradient:gd",
    "kl": "shared.text.losses.gradient:kl",
    "po": "shared.text.losses.preference:po",
    "idk_dpo": "shared.text.losses.preference:idk_dpo",
    "npo": "shared.text.losses.preference:npo",
    "simnpo": "shared.text.losses.preference:simnpo",
    "rmu": "shared.text.losses.representation:rmu",
    "wga": "shared.text.losses.reweighted:wga",
    "satimp": "shared.text.losses.reweighted:satimp",
    "undial": "shared.text.losses.targets:undial",
    "ceu": "shared.text.losses.targets:ceu",
    "pdu": "shared.text.losses.primal_dual:pdu",
}
