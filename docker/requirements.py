"""Print what setup.cfg asks for, one requirement a line: an image's large layers need no code of ours."""

import configparser
import sys

parser = configparser.ConfigParser()
parser.read(sys.argv[1])
sys.stdout.write(parser["options"]["install_requires"].strip() + "\n")
