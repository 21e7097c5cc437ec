"""What an annotated example shows, found in your own images.

    python -m papers.segic.predict --example IMAGE MASK --image IMAGE [--text NAME] --checkpoint FILE [--out FOLDER]
    python -m papers.segic.predict --checkpoint JOB --save FILE

MASK is a picture of the example's size: what is brighter than half is to be found. FILE is a released file
(segic_dinov2_l_80kx12e.pth; its DINOv2 and CLIP are taken from DATA_MIRROR or downloaded), or a .safetensors made by
--save. JOB is a row of a finished run, such as results/segic/<scale>/jobs/E4/<setting>/all/s1.json: it can be used
wherever FILE can. Several --example are looked at together, several --image one after the other. For every image the
folder gets

    <name>_mask.png     0 or 255
    <name>_overlay.png  the image with contours, dark outside, enlarged by a whole factor if it is small
"""

import sys

from shared.segmentation.episodes.tool import run_tool


def main(argv: list[str] | None = None) -> int:
    """Run the tool; the exit code is 0, or 2 after one line that says what is wrong."""
    return run_tool(argv, "papers.segic", __doc__, reads_text=True)


if __name__ == "__main__":
    sys.exit(main())
