"""The TrOCR network: an image transformer and a text transformer from the `transformers` package."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.errors import InputError

# The config settings that are used and stored. All others are ignored: they may refer to code to download and run.
ENCODER = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps", "image_size", "patch_size",
    "num_channels", "qkv_bias",
)  # fmt: skip
DECODER = (
    "vocab_size", "d_model", "decoder_layers", "decoder_attention_heads", "decoder_ffn_dim", "activation_function",
    "max_position_embeddings", "dropout", "attention_dropout", "activation_dropout", "decoder_layerdrop",
    "scale_embedding", "use_learned_position_embeddings", "layernorm_embedding", "cross_attention_hidden_size",
    "tie_word_embeddings", "pad_token_id",
)  # fmt: skip

State = tuple[Tensor, Tensor, Any]  # the memory, the image index of each row, and the cached keys and values


def transformers() -> Any:
    """Import `transformers` on first use, since the import takes seconds and only this model needs it.

    Raises:
        InputError: if the package is not installed.
    """
    try:
        import transformers as package
    except ImportError:
        raise InputError(
            "model=trocr_pretrained: the package transformers is not installed; run pip install 'htr-lightning[trocr]'"
        ) from None
    return package


class PretrainedTrOCR(nn.Module):
    """A vision transformer (Dosovitskiy et al., 2021, arXiv:2010.11929; Touvron et al., 2021, arXiv:2012.12877) and a
    decoder with cross-attention (Li et al., 2021, "TrOCR", arXiv:2109.10282).

    Weights are not initialised, since they are always loaded.

    Args:
        encoder: settings of the encoder (see `ENCODER`), including "model_type", which is "vit" or "deit".
        decoder: settings of the decoder (see `DECODER`).
        dropout: dropout probability in the decoder; None for the value in `decoder`.
        gradient_checkpointing: whether to recompute layers in the backward pass to save memory.

    Raises:
        InputError: if `transformers` is not installed, or the encoder type is unsupported.
        ValueError: if a setting is invalid.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        dropout: float | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        package = transformers()
        kinds = {
            "vit": (package.ViTConfig, package.ViTModel),
            "deit": (package.DeiTConfig, package.DeiTModel),
        }
        if encoder.get("model_type") not in kinds:
            raise InputError(f"unsupported encoder '{encoder.get('model_type')}'; expected one of {', '.join(kinds)}")
        settings, kind = kinds[encoder["model_type"]]
        overrides = {} if dropout is None else {"dropout": dropout}
        from transformers.initialization import no_init_weights  # not a public interface

        with no_init_weights():  # all weights are loaded
            self.encoder = kind(_config(settings, encoder, ENCODER), add_pooling_layer=False)
            self.decoder = package.TrOCRForCausalLM(_config(package.TrOCRConfig, {**decoder, **overrides}, DECODER))
        words, positions = self.decoder.model.decoder.embed_tokens, self.decoder.model.decoder.embed_positions
        if decoder["tie_word_embeddings"]:
            self.decoder.output_projection.weight = words.weight
        if not decoder["use_learned_position_embeddings"]:  # move the positions between devices with the network
            table = positions.weights
            del positions.weights
            positions.register_buffer("weights", table, persistent=False)
        if gradient_checkpointing:
            for part in (self.encoder, self.decoder):  # the method name depends on the version of transformers
                enable = getattr(part, "activation_checkpointing_enable", None) or part.gradient_checkpointing_enable
                enable({"use_reentrant": False})

    def forward(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> Float[Tensor, "B S D"]:
        """Return the memory for the decoder; `widths` is ignored, since images are not padded."""
        grey = (1 - 2 * images).expand(-1, 3, -1, -1)  # paper is 1 and ink is -1, as in (grey - 0.5) / 0.5
        return self.encoder(grey).last_hidden_state

    def logits(self, memory: Float[Tensor, "B S D"], tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L C"]:
        """Return the logits after each token, given that token and all earlier ones."""
        return self.decoder(tokens, encoder_hidden_states=memory, use_cache=False).logits

    @staticmethod
    def begin(memory: Float[Tensor, "B S D"]) -> State:
        """Return the state before the first step."""
        return memory, torch.arange(len(memory), device=memory.device), None

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B C"], State]:
        """Return the log-probabilities after the next token of each row, and the new state; see `Steps`."""
        memory, images, cache = state
        output = self.decoder(tokens[:, None], encoder_hidden_states=memory, past_key_values=cache, use_cache=True)
        return output.logits[:, -1].float().log_softmax(1), (memory, images, output.past_key_values)

    @staticmethod
    def reorder(state: State, rows: Int[Tensor, " N"]) -> State:
        """Return a state whose row i is row `rows[i]` of the given state; see `Steps`."""
        memory, images, cache = state
        moved = images[rows]
        if not torch.equal(moved, images):  # otherwise each row still attends to the same image
            memory = memory[rows]
            if cache is not None:
                cache.cross_attention_cache.reorder_cache(rows)
        if cache is not None:
            cache.self_attention_cache.reorder_cache(rows)
        return memory, moved, cache


def _config(kind: Any, settings: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    try:
        return kind(**{key: settings[key] for key in keys if key in settings})
    except Exception as error:  # transformers raises its own errors for invalid values
        raise ValueError(f"{kind.__name__}: {' '.join(str(error).split())}") from None
