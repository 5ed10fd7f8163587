"""llama.cpp itself, out of the wheel of xllamacpp: a tiny Llama as GGUF, its control vectors, its logits.

xllamacpp's Python sets no control vector, so the C functions of its library are called. Structures go by value and
their layout changes: a block of memory larger than any stands for them, filled by llama.cpp's own defaults.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_control_vector", "logits", "write_model"]

_LOAD = "_Z26common_control_vector_loadRKSt6vectorI31common_control_vector_load_infoSaIS0_EE"


class _Opaque(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 1024)]


class _Batch(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 56)]


class _LoadInfo(ctypes.Structure):
    """With a std::string as manylinux2014 has it: one pointer to its characters."""

    _fields_ = [("strength", ctypes.c_float), ("file", ctypes.c_char_p)]


class _Vector(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_void_p), ("end", ctypes.c_void_p), ("room", ctypes.c_void_p)]


class _Loaded(ctypes.Structure):
    _fields_ = [("width", ctypes.c_int), ("data", _Vector)]


def _library() -> Any:
    found = importlib.util.find_spec("xllamacpp")
    assert found and found.origin
    library = ctypes.CDLL(str(next(Path(found.origin).parent.glob("xllamacpp*.so"))))
    library.llama_model_default_params.restype = _Opaque
    library.llama_context_default_params.restype = _Opaque
    library.llama_batch_get_one.restype = _Batch
    for name in ("llama_model_load_from_file", "llama_init_from_model"):
        getattr(library, name).restype = ctypes.c_void_p
    library.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    getattr(library, _LOAD).restype = _Loaded
    return library


def load_control_vector(files: Sequence[tuple[Path, float]]) -> NDArray[np.float32] | None:
    """What llama.cpp's own loader of `--control-vector` makes of files and strengths; None if it refuses them."""
    infos = (_LoadInfo * len(files))()
    for info, (path, strength) in zip(infos, files, strict=True):
        info.strength, info.file = strength, str(path).encode()
    begin = ctypes.addressof(infos)
    end = begin + ctypes.sizeof(infos)
    loaded = getattr(_library(), _LOAD)(ctypes.byref(_Vector(begin, end, end)))
    if loaded.width == -1:
        return None
    count = (loaded.data.end - loaded.data.begin) // 4
    return np.array((ctypes.c_float * count).from_address(loaded.data.begin), np.float32).reshape(
        -1, loaded.width
    )


def logits(
    model: Path, tokens: Sequence[int], vocabulary: int, vector: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """The logits after the last token. `vector`: as loaded, applied to all layers as llama.cpp's programs do."""
    library = _library()
    library.llama_backend_init()
    loaded = library.llama_model_load_from_file(str(model).encode(), library.llama_model_default_params())
    assert loaded
    context = library.llama_init_from_model(ctypes.c_void_p(loaded), library.llama_context_default_params())
    assert context
    if vector is not None:
        layers = library.llama_model_n_layer(ctypes.c_void_p(loaded))
        flat = np.ascontiguousarray(vector.reshape(-1))
        assert not library.llama_set_adapter_cvec(
            ctypes.c_void_p(context),
            flat.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            ctypes.c_size_t(flat.size),
            ctypes.c_int32(vector.shape[1]),
            ctypes.c_int32(1),
            ctypes.c_int32(layers),
        )
    ids = (ctypes.c_int32 * len(tokens))(*tokens)
    assert not library.llama_decode(ctypes.c_void_p(context), library.llama_batch_get_one(ids, len(tokens)))
    found = library.llama_get_logits_ith(ctypes.c_void_p(context), ctypes.c_int32(-1))
    result = np.array(found[:vocabulary], np.float32)
    library.llama_free(ctypes.c_void_p(context))
    library.llama_model_free(ctypes.c_void_p(loaded))
    return result


def write_model(path: Path, model: Any) -> None:
    """A LlamaForCausalLM in F32 as GGUF, without a vocabulary."""
    import gguf

    config, tensors = model.config, {name: one.numpy() for name, one in model.state_dict().items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, one in tensors.items():
        if name.endswith("q_proj.weight"):
            one = _interleaved(one, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            one = _interleaved(one, config.num_key_value_heads)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(one))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(matrix: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """llama.cpp turns neighbours where transformers turns halves of a head."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
