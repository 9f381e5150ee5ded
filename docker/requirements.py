"""Print the requirements of setup.cfg, one a line, so that an image's large layers do not depend on the code."""

import configparser
import sys

parser = configparser.ConfigParser()
parser.read(sys.argv[1])
sys.stdout.write(parser["options"]["install_requires"].strip() + "\n")
