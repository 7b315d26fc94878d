"""Word-level tokenizers built from a corpus: deterministic, without a download."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


def word_tokenizer(
    texts: Iterable[str],
    *,
    size: int,
    special: Sequence[str],
    roles: dict[str, str],
    single: str | None = None,
    pair: str = "$A $B",
    split_punctuation: bool = True,
) -> PreTrainedTokenizerFast:
    """Build a tokenizer that knows the most frequent words of ``texts``.

    ``size``: the model's vocabulary size; ids stay below it, rarer words become the unknown token.
    ``special``: the special tokens, which take the ids from 0 on in this order.
    ``roles``: special token for ``unk_token``, ``pad_token``, …, transformers' names of the roles.
    ``single``, ``pair``: templates for one text and for two, like ``[CLS] $A [SEP]``.
    ``split_punctuation``: whether punctuation separates words, or only white space does.
    """
    split: pre_tokenizers.PreTokenizer = pre_tokenizers.WhitespaceSplit()
    if split_punctuation:
        split = pre_tokenizers.Sequence([split, pre_tokenizers.Punctuation()])
    counts = Counter(word for text in texts for word, _ in split.pre_tokenize_str(text))
    # Ties are broken by the word itself, so that the ids do not depend on the order of the texts.
    words = sorted(counts.keys() - set(special), key=lambda word: (-counts[word], word))
    ids = {word: index for index, word in enumerate([*special, *words][:size])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=roles["unk_token"]))
    tokenizer.pre_tokenizer = split
    if single is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single,
            pair=pair,
            special_tokens=[(token, ids[token]) for token in special],
        )
    wrapper: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = wrapper(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **roles
    )
    return wrapped
