"""The weights that a training starts from: random, or a checkpoint of the same preset."""

from __future__ import annotations

import torch

from sam2s_model.config import ModelConfig
from sam2s_model.errors import Sam2sError
from sam2s_model.model import Sam2s
from sam2s_model.textbank import TextBank, find_bank
from sam2s_model.weights import detect_preset, read_state_dict, resolve
from sam2s_training import seeds
from sam2s_training.recipe import Recipe


class ForeignWeightsError(Sam2sError):
    """Weights of another preset than the recipe's."""


class BankWidthError(Sam2sError):
    """A text bank whose embeddings are wider or narrower than the model's class vectors."""


def load_bank(name: str, config: ModelConfig) -> TextBank:
    """Load the recipe's text bank, which must fit the model's class vectors."""
    bank = TextBank.load(find_bank(name))
    if bank.dim != config.semantic_dim:
        raise BankWidthError(
            f"the text bank {name} has {bank.dim} dimensions ({bank.encoder}), the class vectors "
            f"of '{config.name}' {config.semantic_dim}; choose a bank of {config.semantic_dim} "
            "dimensions"
        )
    return bank


def fresh_model(recipe: Recipe) -> Sam2s:
    """Build the model that step 0 starts from."""
    settings = recipe.model
    config = ModelConfig.preset(settings.preset, image_size=recipe.phases[0].image_size)
    load_bank(settings.text_bank, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.seed_of(recipe.seed, seeds.WEIGHTS))
        model = Sam2s(config)
    if settings.weights is not None:
        path = resolve(settings.weights)
        tensors = read_state_dict(path)
        preset = detect_preset(tensors)
        if preset != settings.preset:
            raise ForeignWeightsError(
                f"{path} holds weights of '{preset}', the recipe {recipe.name} trains "
                f"'{settings.preset}'; set model.preset: {preset}, or give weights of "
                f"'{settings.preset}'"
            )
        model.load_sam2(tensors)
        model.has_semantics = True  # new or not, the class token is trained from here on
    return model
