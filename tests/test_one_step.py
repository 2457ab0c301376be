"""The one-step transform: against its definition, and the coefficients that DOVE's weights were trained with."""

import pytest
import torch
from torch.testing import assert_close

from tests.tiny import random_pipeline
from vsr.one_step import add_noise, clean_from_v, coefficients


def test_clean_from_v_inverts_the_definition_of_v():
    z0, eps = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 4, 3, 8, 8)
    abar = torch.tensor([0.2, 0.9])
    a, b = abar.view(2, 1, 1, 1, 1).sqrt(), (1 - abar).view(2, 1, 1, 1, 1).sqrt()
    assert_close(clean_from_v(a * z0 + b * eps, a * eps - b * z0, abar), z0)
    assert_close(add_noise(z0, eps, abar), a * z0 + b * eps)


def test_coefficients_at_399_in_float32_and_as_bfloat16_rounds_them():
    alpha_bar = random_pipeline("1.5-5b").alpha_bar(399)
    assert alpha_bar.item() == pytest.approx(0.393544, abs=1e-6)
    assert [c.item() for c in coefficients(alpha_bar)] == pytest.approx([0.6273309, 0.7787528], abs=1e-6)
    assert [c.item() for c in coefficients(alpha_bar, torch.bfloat16)] == [0.625, 0.78125]


def test_the_2b_schedule_has_its_own_alpha_bar():
    assert random_pipeline("1.0-2b").alpha_bar(399).item() == pytest.approx(0.178615, abs=1e-6)


def test_a_bfloat16_run_uses_the_coefficients_its_configuration_names():
    z = torch.randn(1, 4, 2, 4, 4, dtype=torch.bfloat16)
    with torch.no_grad():
        exact, rounded = (random_pipeline(coefficients=c).to(torch.bfloat16).denoise(z) for c in ("float32", "model"))
    assert not torch.equal(exact, rounded)
