"""language-identifier: the language of a text, by naive Bayes over character n-grams."""

import hashlib
from collections import Counter
from importlib.metadata import version as installed

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import catalogues
from ngrams import BUCKETS, buckets, count
from reference import Case, infer
from version import Trained, Version, finish

# ISO 639-1 codes, and the folders of catalogues with other names.
LANGUAGES = (
    "ar bg cs da de el en es et fa fi fr he hi hu id it ja ko lt lv nb nl pl pt ro ru sk sv tr uk vi zh"
).split()
FOLDERS = {"zh": "zh_Hans"}
TEST_SHARE = 0.15
LONG = 40  # letters; most messages have one or two words
SMOOTHING = 0.05
DECIMALS = 3  # of weights, so that logarithms are the same on every CPU
# Naive Bayes assumes that overlapping n-grams are independent, and is overconfident. The temperature
# with the lowest cross entropy on the test texts is used.
TEMPERATURES = [1, 2, 3, 4, 5, 6, 8, 10]
TOLERANCE = 1e-5
GOLDEN_TEXTS = [
    "All human beings are born free and equal in dignity and rights.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.",
    "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren.",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "人人生而自由,在尊严和权利上一律平等。",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "İSTANBUL'DA 3 ÇAY × 2",
    "ΌΔΟΣ ΣΊΣΥΦΟΣ",
    "  the\tCAT\nsat; ﬁne—“quoted”… 🐈 ",
    "a",
]


def is_test(original):
    """The same for a message in all languages, so that names in it do not leak."""
    return hashlib.sha256(original.encode()).digest()[0] < 256 * TEST_SHARE


def collect():
    """Train texts, their languages, test texts, their languages. A language is an index into LANGUAGES."""
    parts = {False: ([], []), True: ([], [])}
    for language, name in enumerate(LANGUAGES):
        for original, text in catalogues.texts(FOLDERS.get(name, name)):
            texts, languages = parts[is_test(original)]
            texts.append(text)
            languages.append(language)
    return [array for part in parts.values() for array in (part[0], np.array(part[1]))]


def logarithms(texts, languages):
    """The logarithm of each bucket's share of a language's n-grams: (bucket, language)."""
    counts = np.full((len(LANGUAGES), BUCKETS), SMOOTHING)
    for text, language in zip(texts, languages, strict=True):
        np.add.at(counts[language], buckets(text), 1)
    return np.log(counts / counts.sum(axis=1, keepdims=True)).T


def cross_entropy(scores, languages):
    """Mean cross entropy."""
    scores = scores - scores.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(scores).sum(axis=1))
    return (normaliser - scores[np.arange(len(scores)), languages]).mean()


def to_onnx(weights, version):
    """`counts`, a row per text -> `label`, `probabilities`."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["counts", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        version.model,
        [value("counts", TensorProto.FLOAT, [None, BUCKETS])],
        [
            value("label", TensorProto.INT64, [None]),
            value("probabilities", TensorProto.FLOAT, [None, len(LANGUAGES)]),
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    return finish(helper.make_model(graph, doc_string=version.description), version)


def names(outputs):
    """The output that the component's mapping adds."""
    labels = outputs["label"].tolist()
    return {"language": {"shape": [len(labels)], "data": [LANGUAGES[label] for label in labels]}}


def case(texts):
    return Case(count(texts), {"text": {"shape": [len(texts)], "data": texts}}, names)


def train(version):
    train_texts, train_languages, test_texts, test_languages = collect()
    scores = logarithms(train_texts, train_languages)
    test_rows = count(test_texts)
    raw = test_rows @ scores
    temperature = min(TEMPERATURES, key=lambda factor: cross_entropy(raw / factor, test_languages))
    weights = (scores / temperature).round(DECIMALS).astype(np.float32)
    long = np.array([sum(letter.isalpha() for letter in text) >= LONG for text in test_texts])

    def metrics(session):
        hits = infer(session, test_rows)["label"] == test_languages
        return {
            "test_accuracy": round(float(hits.mean()), 4),
            "test_accuracy_long": round(float(hits[long].mean()), 4),
        }

    grouped = [
        {"text": text, "buckets": sorted([bucket, times] for bucket, times in groups.items())}
        for text, groups in ((text, Counter(buckets(text))) for text in GOLDEN_TEXTS)
    ]
    return Trained(
        graph=to_onnx(weights, version),
        reference=test_rows,
        golden=[case([text]) for text in GOLDEN_TEXTS] + [case(GOLDEN_TEXTS)],
        tolerance=TOLERANCE,
        metrics=metrics,
        provenance={
            "dataset": f"translations of Django {installed('django')}: {len(train_texts)} texts to "
            f"train, {len(test_texts)} to test, {int(long.sum())} of them of {LONG} letters or more",
            "estimator": f"naive Bayes of groups of 1 to 3 letters in {BUCKETS} buckets, "
            f"smoothing {SMOOTHING}, temperature {temperature}",
            "framework": f"numpy {installed('numpy')}",
            "converter": f"onnx {installed('onnx')}",
        },
        more_files={"ngrams.json": grouped},
    )


VERSIONS = [
    Version(
        model="language-identifier",
        number="1",
        description=f"Which of {len(LANGUAGES)} languages a text is in: "
        "naive Bayes over groups of letters.",
        train=train,
        labels=LANGUAGES,
        inputs=[{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        more_outputs=[{"name": "language", "datatype": "BYTES", "shape": [-1]}],
    )
]
