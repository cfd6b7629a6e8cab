from inference.conftest import folder as folder
from inference.conftest import learn as learn
