"""The same seeds of every evaluation, one below the other."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from mobilediff.training.tools import seeds


def test_the_same_seeds_of_every_evaluation_stand_below_each_other(tmp_path):
    folder = tmp_path / "run" / "samples"
    folder.mkdir(parents=True)
    for step in (10, 20):
        grid = torch.zeros(80, 3, 32, 32)
        grid[7 * 8 : 8 * 8] = step / 255  # the horses
        to_pil_image(make_grid(grid, nrow=8)).save(folder / f"{step:08d}.png")
    rows = seeds.read_rows(tmp_path / "run", "horse")
    assert list(rows) == [10, 20] and all(row.shape == (36, 274, 3) for row in rows.values())
    assert [int(row[2:34, 2:34].min()) for row in rows.values()] == [10, 20]
    assert seeds.read_rows(tmp_path / "run", "ship")[20].max() == 0
    seeds.main([str(tmp_path / "run"), "--output", str(tmp_path / "seeds.png")])
    assert Image.open(tmp_path / "seeds.png").width > 2 * 274
    for arguments, named in (
        (["--classes", "unicorn", "--output", "a.png"], "class is 'unicorn'; accepted are airplane"),
        (["--output", "a.jpg"], "--output is a.jpg; accepted is a file that ends in .png"),
    ):
        with pytest.raises(ValueError, match=named):
            seeds.main([str(tmp_path / "run"), *arguments])
    with pytest.raises(FileNotFoundError, match="holds no grids"):
        seeds.main([str(tmp_path), "--output", "a.png"])
    Image.new("RGB", (274, 100)).save(folder / "00000030.png")
    with pytest.raises(ValueError, match="is 100 pixels high; accepted are grids of 10 rows"):
        seeds.read_rows(tmp_path / "run", "horse")
