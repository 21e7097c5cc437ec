"""What the generation experiments of full and unsafe read, small and in its published layout: CIFAR-10, Imagenette,
torchvision's weights, Stable Diffusion's folder, prompts. Images are noise, prompts are harmless."""

import csv
import hashlib
import io
import shutil
import tarfile

import numpy as np
import torch
import yaml
from PIL import Image
from torchvision.models import resnet34, resnet50

from shared.data.verify import content_digest, tree_entries
from shared.paths import ROOT
from tests.diffusion.conftest import stable_diffusion_folder
from tests.e2e.test_full_scale import NUM_A_BATCH
from tests.e2e.test_full_scale import archive as cifar10
from tests.papers.unlearndiffatk.miniatures import I2P, prompts

WNIDS = (
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079",
    "n03394916", "n03417042", "n03425413", "n03445777", "n03888257",
)  # fmt: skip
IMAGES_A_CLASS = 3
PAIRS = [("a red barn", "a green barn"), ("a red kite", "a green kite")]


def jpeg(seed):
    """A small wide photograph; every third one is grey, as a few of Imagenette's are."""
    pixels = np.random.RandomState(seed).randint(0, 256, (20, 26, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if seed % 3 == 2 else pixels).save(stream, "JPEG")
    return stream.getvalue()


def imagenette():
    """imagenette2-160.tgz: train and val, a folder a class, names as ImageNet has them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for part, number in (("train", IMAGES_A_CLASS), ("val", 1)):
            for place, wnid in enumerate(WNIDS):
                for index in range(number):
                    content = jpeg(IMAGES_A_CLASS * place + index)
                    member = tarfile.TarInfo(f"imagenette2-160/{part}/{wnid}/{wnid}_{index}.JPEG")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def weights(network):
    """The file of a network's state dict."""
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    return stream.getvalue()


def offer(place, manifests, name, content, **values):
    """Put a file into the mirror, and its digest and size into the manifest that pins it; values: to change there."""
    path = manifests / f"{name}.yaml"
    manifest = yaml.safe_load(path.read_text()) | values
    file = manifest["files"][0]
    (place / file["name"]).write_bytes(content)
    if "sha256" in file:
        file |= {"sha256": [hashlib.sha256(content).hexdigest()], "md5": [], "size": len(content)}
    manifest["content"].pop("sha256", None)
    manifest["content"]["max_bytes"] = max(manifest["content"]["max_bytes"], len(content))
    path.write_text(yaml.safe_dump(manifest))


def stable_diffusion(place, manifests):
    """Its folder, and the manifest with the digest of what is here."""
    folder = stable_diffusion_folder(place / "stable_diffusion_v1_4")
    path = manifests / "stable_diffusion_v1_4.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest["hub"]["allow"] = ["*"]
    manifest["content"] = {"max_bytes": 10**9, "sha256": content_digest(tree_entries(folder))}
    path.write_text(yaml.safe_dump(manifest))


def by_hand(place):
    """What a person puts in place: pairs and prompts, and a detector that only the runtime reads."""
    for name in ("unsafe_pairs", "unlearndiffatk_i2p", "nudenet_v3"):
        (place / name).mkdir()
    with (place / "unsafe_pairs" / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "anchor"), *PAIRS])
    for name, number in I2P.items():
        prompts(place / "unlearndiffatk_i2p" / name, number)
    (place / "nudenet_v3" / "best.onnx").write_bytes(b"read by the runtime alone")


def mirror(root):
    """`mirror` with everything and `manifests`, the project's own with the digests of what is here, below `root`."""
    place, manifests = root / "mirror", root / "manifests"
    shutil.copytree(ROOT / "data_manifests", manifests)
    place.mkdir()
    shape = {"shape": [32, 32, 3], "num_classes": 10, "num_train": 5 * NUM_A_BATCH, "num_test": NUM_A_BATCH}
    offer(place, manifests, "cifar10", cifar10(), images=shape)
    offer(place, manifests, "imagenette", imagenette())
    torch.manual_seed(0)
    offer(place, manifests, "torchvision_resnet34", weights(resnet34()))
    offer(place, manifests, "torchvision_resnet50_v2", weights(resnet50()))
    offer(place, manifests, "inception_fid", b"weights that the tests replace")
    stable_diffusion(place, manifests)
    by_hand(place)
