"""Draw docs/report.png: the page that `amc-analyze --html` writes, as Chromium shows it. `make picture` runs this."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "sweeps" / "recorded" / "94fqx0gz.yaml"
PICTURE = ROOT / "docs" / "report.png"
SIZE = (1000, 1320)  # pixels: the top of the page, to the end of the first chart
COLOURS = 128
LIMIT_BYTES = 200_000  # a README must load fast


def main() -> None:
    """Write the page into a temporary folder, photograph it and reduce its colours."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("The picture needs Chromium: apt-get install chromium")
    with TemporaryDirectory() as folder:
        page, picture = Path(folder, "report.html"), Path(folder, "report.png")
        analyze = Path(sys.executable).with_name("amc-analyze")
        subprocess.run([analyze, "--from", SWEEP, "--html", page], check=True, stdout=subprocess.DEVNULL)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
        flags += [f"--user-data-dir={folder}/profile", f"--window-size={SIZE[0]},{SIZE[1]}"]
        command = [browser, *flags, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=120)
        with Image.open(picture) as image:
            # The default method (median cut) merges the small coloured marks, such as a warning's and an error's.
            image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(PICTURE, optimize=True)
    size = PICTURE.stat().st_size
    if size > LIMIT_BYTES:
        sys.exit(f"{PICTURE} has {size:,} bytes, allowed are {LIMIT_BYTES:,}: lower SIZE or COLOURS")


if __name__ == "__main__":
    main()
