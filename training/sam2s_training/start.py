"""What a training starts from: the bank, and random weights or a checkpoint of the same preset."""

from __future__ import annotations

import torch

from sam2s_model.config import ModelConfig
from sam2s_model.errors import Sam2sError
from sam2s_model.model import Sam2s
from sam2s_model.textbank import TextBank, find_bank
from sam2s_model.weights import detect_preset, read_state_dict, resolve
from sam2s_training import seeds
from sam2s_training.recipe import PhaseSettings, Recipe


class ForeignWeightsError(Sam2sError):
    """Weights of another preset than the recipe's."""


def load_bank(recipe: Recipe) -> TextBank:
    """Load the recipe's text bank."""
    return TextBank.load(find_bank(recipe.model.text_bank))


def config_of(recipe: Recipe, phase: PhaseSettings, bank: TextBank) -> ModelConfig:
    """Give the model's shapes in a phase; class vectors are as wide as the bank's embeddings."""
    return ModelConfig.preset(
        recipe.model.preset, image_size=phase.image_size, semantic_dim=bank.dim
    )


def fresh_model(recipe: Recipe) -> Sam2s:
    """Build the model that step 0 starts from."""
    settings = recipe.model
    bank = load_bank(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.seed_of(recipe.seed, seeds.WEIGHTS))
        model = Sam2s(config_of(recipe, recipe.phases[0], bank))
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
        projection = tensors.get("semantic.project.weight")
        if projection is not None and len(projection) != bank.dim:
            # Made for a bank of another encoder: what it says of classes means nothing here.
            tensors = {k: v for k, v in tensors.items() if not k.startswith("semantic.")}
        model.load_sam2(tensors)
        model.has_semantics = True  # new or not, the class token is trained from here on
    return model
