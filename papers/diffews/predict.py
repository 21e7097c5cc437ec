"""What an annotated example shows, found in your own images.

    python -m papers.diffews.predict --example IMAGE MASK [--example ...] --image IMAGE [--image ...] --checkpoint FILE
    python -m papers.diffews.predict --checkpoint JOB --save FILE

MASK is a picture of the example's size: what is brighter than half is to be found. Several --example are looked at
together, several --image one after the other. FILE is a folder of the authors' release (coco_fold0 ... coco_fold3,
incontext, with `unet/` in it), or a .safetensors made by --save. JOB is a row of a finished run, such as
results/diffews/<scale>/jobs/<table>/<setting>/<row>/s3-4.json: it can be used wherever FILE can. For every image the
folder gets

    <name>_mask.png     0 or 255
    <name>_overlay.png  the image with contours, dark outside, enlarged by a whole factor if it is small
"""

import sys

from shared.segmentation.episodes.tool import run_tool


def main(argv: list[str] | None = None) -> int:
    """Run the tool; the exit code is 0, or 2 after one line that says what is wrong."""
    return run_tool(argv, "papers.diffews", __doc__)


if __name__ == "__main__":
    sys.exit(main())
