"""The matrix product and the copy that measure a machine's peaks."""

import torch

from mobilediff import timing


def test_a_slow_product_is_a_small_one(monkeypatch):
    """A machine that multiplies at 1 GFLOP/s: 256 rows take 34 ms, 512 take 268 ms and 1,024 would take 2.1 s."""
    monkeypatch.setattr(timing, "MATRIX_SIZE", 2048)
    monkeypatch.setattr(timing, "seconds", lambda product, device: 2 * product.size**3 / 1e9)
    product = timing.MatrixProduct(torch.float32, torch.device("cpu"))
    assert product.size == 512 and product().shape == (512, 512)
    assert product.gflops(0.25) == 2 * 512**3 / 0.25 / 1e9


def test_a_quick_product_has_all_rows(monkeypatch):
    monkeypatch.setattr(timing, "MATRIX_SIZE", 256)
    monkeypatch.setattr(timing, "seconds", lambda product, device: 1e-6)
    assert timing.MatrixProduct(torch.bfloat16, torch.device("cpu")).size == 256


def test_a_copy_reads_and_writes_each_byte(monkeypatch):
    monkeypatch.setattr(timing, "COPIED_BYTES", 4000)
    copy = timing.MemoryCopy(torch.device("cpu"))
    assert torch.equal(copy(), torch.ones(1000))
    assert copy.gigabytes_per_second(0.5) == 2 * 4000 / 0.5 / 1e9
