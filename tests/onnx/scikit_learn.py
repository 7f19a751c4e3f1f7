"""Models of scikit-learn for models.py, which are trained and converted here."""

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import make_blobs, make_classification, make_regression
from sklearn.decomposition import PCA, IncrementalPCA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import (
    CountVectorizer,
    TfidfVectorizer,
)
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    RationalQuadratic,
)
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    BayesianRidge,
    GammaRegressor,
    HuberRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
)
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import (
    BernoulliNB,
    CategoricalNB,
    ComplementNB,
    GaussianNB,
    MultinomialNB,
)
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    LocalOutlierFactor,
    RadiusNeighborsRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, OneClassSVM
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeRegressor,
)

# Rows of a case.
ROWS = 7
OPSET = {"": 18, "ai.onnx.ml": 3}


def spread(features, seed=9, offset=0.0):
    """Rows with magnitudes from 0.01 to 1,000, most of them with negative values."""
    generator = np.random.default_rng(seed)
    scales = generator.choice([0.01, 1.0, 30.0, 1000.0], size=(ROWS, 1))
    return (generator.normal(size=(ROWS, features)) * scales + offset).astype(np.float32)


def counts(features, seed=4):
    return np.random.default_rng(seed).poisson(8.0, size=(ROWS, features)).astype(np.float32)


CLASSES = make_classification(400, 8, n_informative=5, n_classes=3, random_state=0)
NUMBERS = make_regression(400, 8, noise=3.0, random_state=0)
TWO_CLASSES = (CLASSES[0], (CLASSES[1] > 0).astype(int))
NAMED_CLASSES = (CLASSES[0], np.array(["low", "middle", "high"])[CLASSES[1]])
TWO_NUMBERS = make_regression(400, 8, n_targets=2, noise=3.0, random_state=0)
WIDE = make_blobs(900, 64, centers=5, cluster_std=4.0, center_box=(-20, 20), random_state=0)
DIGITS = (
    np.random.default_rng(0).poisson(6.0, size=(500, 64)).astype(np.float64),
    np.arange(500) % 4,
)

TEXTS = np.array(
    [
        "the engine stopped, twice",
        "brakes make a noise",
        "Engine oil leaks",
        "new tyres and brakes",
        "the seat is torn",
        "oil change, new filter",
        "noise from the engine",
        "tyres worn out",
    ]
)
LABELS = np.array(["motor", "brakes", "motor", "wheels", "inside", "motor", "motor", "wheels"])
QUESTIONS = np.array(
    [
        ["the oil leaks"],
        ["noise, noise, noise"],
        [""],
        ["worn out brakes"],
        ["SEAT"],
        ["unknown words only"],
        ["the the the tyres"],
    ]
)


def scikit_learn():
    cases = []

    def add(name, model, data, inputs, types=None, options=None):
        if not isinstance(inputs, dict):
            inputs = {"X": inputs}
        if types is None:
            types = [("X", FloatTensorType([None, inputs["X"].shape[1]]))]
        kept = {id(model): {"zipmap": False}} if options is None else options
        make = lambda: to_onnx(
            model.fit(*data), initial_types=types, options=kept, target_opset=OPSET
        )
        cases.append((name, make, inputs))

    def classifier(name, model, data=CLASSES, inputs=None, **more):
        add(name, model, data, spread(data[0].shape[1]) if inputs is None else inputs, **more)

    def other(name, model, data=NUMBERS, inputs=None, **more):
        add(
            name,
            model,
            data,
            spread(data[0].shape[1]) if inputs is None else inputs,
            options=more.pop("options", {}),
            **more,
        )

    # Probabilities are products of 64 factors: the exponential of their logarithms underflows.
    classifier("naive-bayes-64-features", GaussianNB(), WIDE, spread(64, offset=3.0))
    classifier("naive-bayes-multinomial-64-features", MultinomialNB(), DIGITS, counts(64))
    classifier("naive-bayes-complement-64-features", ComplementNB(), DIGITS, counts(64))
    classifier("naive-bayes-bernoulli-64-features", BernoulliNB(binarize=5.0), DIGITS, counts(64))
    integers = [("X", Int64TensorType([None, 64]))]
    classifier(
        "naive-bayes-categorical",
        CategoricalNB(min_categories=30),
        DIGITS,
        counts(64).astype(np.int64),
        types=integers,
    )
    classifier("logistic-regression", LogisticRegression(max_iter=1000))
    classifier("logistic-regression-two-classes", LogisticRegression(), TWO_CLASSES)
    classifier(
        "logistic-regression-named-classes", LogisticRegression(max_iter=1000), NAMED_CLASSES
    )
    classifier(
        "logistic-regression-zip-map", LogisticRegression(max_iter=1000), NAMED_CLASSES, options={}
    )
    classifier(
        "logistic-regression-double",
        LogisticRegression(max_iter=1000),
        types=[("X", DoubleTensorType([None, 8]))],
        inputs=spread(8).astype(np.float64),
    )
    classifier("sgd", SGDClassifier(loss="modified_huber", random_state=0))
    classifier("linear-svc", LinearSVC(random_state=0), options={})
    classifier("svc-rbf", SVC(probability=True, random_state=0), inputs=spread(8) / 100)
    classifier(
        "svc-poly", SVC(kernel="poly", degree=3, probability=True, random_state=0), TWO_CLASSES
    )
    classifier("svc-scores", SVC(decision_function_shape="ovr"), options={}, inputs=spread(8) / 100)
    classifier(
        "nu-svc",
        NuSVC(nu=0.3, probability=True, random_state=0),
        TWO_CLASSES,
        inputs=spread(8) / 100,
    )
    classifier("lda", LinearDiscriminantAnalysis())
    classifier("qda", QuadraticDiscriminantAnalysis(), WIDE, spread(64, offset=3.0))
    classifier("decision-tree", DecisionTreeClassifier(random_state=0))
    classifier("random-forest", RandomForestClassifier(20, random_state=0))
    classifier(
        "random-forest-named-classes", RandomForestClassifier(10, random_state=0), NAMED_CLASSES
    )
    classifier("extra-trees", ExtraTreesClassifier(15, random_state=0))
    classifier("gradient-boosting", GradientBoostingClassifier(n_estimators=15, random_state=0))
    missing = spread(8)
    missing[::2, 1::3] = np.nan
    classifier(
        "hist-gradient-boosting-missing",
        HistGradientBoostingClassifier(max_iter=15, random_state=0),
        TWO_CLASSES,
        missing,
    )
    classifier("ada-boost", AdaBoostClassifier(n_estimators=10, random_state=0))
    classifier("bagging", BaggingClassifier(n_estimators=5, random_state=0))
    classifier("neighbours", KNeighborsClassifier(5))
    classifier(
        "neighbours-weighted", KNeighborsClassifier(5, weights="distance", metric="manhattan")
    )
    classifier("perceptron", MLPClassifier((16, 8), max_iter=60, random_state=0))
    classifier("calibrated-isotonic", CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=3))
    classifier("calibrated-sigmoid", CalibratedClassifierCV(LinearSVC(random_state=0), cv=3))
    classifier("one-versus-rest", OneVsRestClassifier(LogisticRegression()))
    voters = [
        ("a", LogisticRegression(max_iter=1000)),
        ("b", DecisionTreeClassifier(max_depth=4, random_state=0)),
        ("c", GaussianNB()),
    ]
    classifier("voting-soft", VotingClassifier(voters, voting="soft", flatten_transform=False))
    stacked = StackingClassifier(
        [("tree", DecisionTreeClassifier(max_depth=3)), ("bayes", GaussianNB())],
        LogisticRegression(),
        cv=3,
    )
    classifier("stacking", stacked)
    several = (CLASSES[0], np.stack([CLASSES[1], CLASSES[1] % 2], axis=1))
    classifier("several-outputs", MultiOutputClassifier(LogisticRegression(max_iter=1000)), several)

    other("linear-regression", LinearRegression())
    other("bayesian-ridge", BayesianRidge())
    other("huber", HuberRegressor(max_iter=300))
    positive = (NUMBERS[0], np.abs(NUMBERS[1]) / 100 + 0.1)
    other("poisson-regressor", PoissonRegressor(), positive, spread(8) / 100)
    other("gamma-regressor", GammaRegressor(), positive, spread(8) / 100)
    other("svr", SVR(), inputs=spread(8) / 50)
    other("neighbours-regressor", KNeighborsRegressor(4))
    other("radius-neighbours-regressor", RadiusNeighborsRegressor(50.0), inputs=spread(8) / 100)
    other("random-forest-regressor", RandomForestRegressor(15, random_state=0))
    other("gradient-boosting-regressor", GradientBoostingRegressor(n_estimators=15, random_state=0))
    other(
        "hist-gradient-boosting-regressor-missing",
        HistGradientBoostingRegressor(max_iter=15, random_state=0),
        inputs=missing,
    )
    other("ada-boost-regressor", AdaBoostRegressor(n_estimators=8, random_state=0))
    other("extra-tree-regressor", ExtraTreeRegressor(random_state=0))
    other(
        "perceptron-regressor", MLPRegressor(hidden_layer_sizes=(16,), max_iter=60, random_state=0)
    )
    few = (NUMBERS[0][:50], NUMBERS[1][:50])
    doubles = [("X", DoubleTensorType([None, 8]))]
    for kernel, of in [
        ("rbf", ConstantKernel(2.0) * RBF(3.0)),
        ("sum", DotProduct() + RationalQuadratic(1.5, 2.0)),
    ]:
        process = GaussianProcessRegressor(of, alpha=1.0, optimizer=None)
        other(
            f"gaussian-process-{kernel}",
            process,
            few,
            (spread(8) / 50).astype(np.float64),
            types=doubles,
        )
    other(
        "voting-regressor",
        VotingRegressor(
            [("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=4, random_state=0))]
        ),
    )
    other(
        "stacking-regressor",
        StackingRegressor([("a", Ridge()), ("b", SVR())], LinearRegression(), cv=3),
    )
    other("several-targets", MultiOutputRegressor(Ridge()), TWO_NUMBERS)
    other("partial-least-squares", PLSRegression(3), TWO_NUMBERS)

    other("k-means", KMeans(4, random_state=0, n_init=1))
    other("mini-batch-k-means", MiniBatchKMeans(3, random_state=0, n_init=1))
    other(
        "gaussian-mixture-64-features",
        GaussianMixture(4, random_state=0),
        WIDE,
        spread(64, offset=3.0),
    )
    other("gaussian-mixture-diagonal", GaussianMixture(3, covariance_type="diag", random_state=0))
    other(
        "bayesian-gaussian-mixture",
        BayesianGaussianMixture(n_components=3, random_state=0, max_iter=50),
    )
    other("isolation-forest", IsolationForest(n_estimators=10, random_state=0))
    other("one-class-svm", OneClassSVM(), inputs=spread(8) / 50)
    other("local-outlier-factor", LocalOutlierFactor(novelty=True))
    other("pca", make_pipeline(RobustScaler(), PCA(3), Ridge()))
    other("incremental-pca", make_pipeline(MaxAbsScaler(), IncrementalPCA(3)))
    other("kernel-pca", KernelPCA(3, kernel="rbf"), (NUMBERS[0][:80], NUMBERS[1][:80]))
    other("truncated-svd", make_pipeline(MinMaxScaler(clip=True), TruncatedSVD(3)))
    other("power-transformer", make_pipeline(PowerTransformer(), Ridge()))
    other("quantile-transformer", make_pipeline(QuantileTransformer(n_quantiles=20), Ridge()))
    other(
        "bins",
        make_pipeline(
            KBinsDiscretizer(5, encode="ordinal", quantile_method="averaged_inverted_cdf"), Ridge()
        ),
    )
    other(
        "polynomials",
        make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge()),
        inputs=spread(8) / 10,
    )
    other("normalised", make_pipeline(Normalizer(norm="l2"), Binarizer(threshold=0.1), Ridge()))
    other("selected", make_pipeline(VarianceThreshold(), SelectKBest(k=4), Ridge()))
    other(
        "union",
        make_pipeline(
            FeatureUnion([("a", PCA(2)), ("b", StandardScaler())]), FunctionTransformer(), Ridge()
        ),
    )
    other("imputer-mean", make_pipeline(SimpleImputer(), Ridge()), inputs=missing)
    other(
        "imputer-constant-indicator",
        make_pipeline(SimpleImputer(strategy="constant", fill_value=-1.0), Ridge()),
        inputs=missing,
    )
    other(
        "imputer-neighbours",
        make_pipeline(KNNImputer(n_neighbors=3), Ridge()),
        (
            np.where(np.random.default_rng(2).random((60, 8)) < 0.1, np.nan, NUMBERS[0][:60]),
            NUMBERS[1][:60],
        ),
        missing,
    )

    # Strings.
    text = [("X", StringTensorType([None, 1]))]
    first = lambda estimator: ColumnTransformer([("text", estimator, 0)])
    column = (TEXTS.reshape(-1, 1), LABELS)
    vectorizers = {
        "tf-idf": TfidfVectorizer(token_pattern=r"[a-zA-Z]+"),
        "tf-idf-two-words": TfidfVectorizer(
            ngram_range=(1, 2), token_pattern=r"[a-zA-Z]+", sublinear_tf=True
        ),
        "count-words": CountVectorizer(token_pattern=r"[a-zA-Z]+", binary=True),
        "count-characters": CountVectorizer(analyzer="char", ngram_range=(1, 2)),
    }
    for name, vectorizer in vectorizers.items():
        classifier(
            name,
            make_pipeline(first(vectorizer), LogisticRegression()),
            column,
            QUESTIONS,
            types=text,
        )
    classifier(
        "tf-idf-zip-map",
        make_pipeline(first(TfidfVectorizer(token_pattern=r"[a-zA-Z]+")), MultinomialNB()),
        column,
        QUESTIONS,
        types=text,
        options={},
    )
    colours = np.array(
        [["red", "s"], ["green", "m"], ["blue", "l"], ["red", "l"], ["green", "s"]] * 8
    )
    prices = np.arange(len(colours), dtype=float) % 7
    asked = np.array(
        [
            ["red", "m"],
            ["blue", "s"],
            ["mauve", "l"],
            ["green", "xl"],
            ["", "s"],
            ["red", "s"],
            ["blue", "l"],
        ]
    )
    strings = [("X", StringTensorType([None, 2]))]
    other(
        "one-hot-strings",
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge()),
        (colours, prices),
        asked,
        types=strings,
    )
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    other(
        "ordinal-strings",
        make_pipeline(ordinal, DecisionTreeRegressor(random_state=0)),
        (colours, prices),
        asked,
        types=strings,
    )
    cases.append(columns(RandomForestClassifier(8, random_state=0), "columns-forest"))
    cases.append(columns(LogisticRegression(max_iter=1000), "columns-logistic"))
    return cases


def columns(model, name):
    """One input for each column: strings, numbers with missing values, and integers, as for a data frame."""
    import pandas as pd

    generator = np.random.default_rng(6)
    count = 300
    frame = pd.DataFrame(
        {
            "city": generator.choice(["Porto", "Lisboa", "Évora"], count),
            "plan": generator.choice(["basic", "plus"], count),
            "age": np.where(generator.random(count) < 0.1, np.nan, generator.normal(45, 15, count)),
            "income": generator.lognormal(10, 1, count),
            "visits": generator.integers(0, 40, count),
        }
    )
    bought = np.where(frame["visits"] + (frame["plan"] == "plus") * 10 > 25, "yes", "no")
    prepared = ColumnTransformer(
        [
            ("words", OneHotEncoder(handle_unknown="ignore"), ["city", "plan"]),
            (
                "numbers",
                Pipeline([("fill", SimpleImputer(strategy="median")), ("scale", StandardScaler())]),
                ["age", "income"],
            ),
            ("counts", StandardScaler(), ["visits"]),
        ]
    )
    pipeline = make_pipeline(prepared, model)
    options = {id(pipeline): {"zipmap": False}}
    one = [None, 1]
    types = [
        ("city", StringTensorType(one)),
        ("plan", StringTensorType(one)),
        ("age", FloatTensorType(one)),
        ("income", FloatTensorType(one)),
        ("visits", Int64TensorType(one)),
    ]
    column = lambda values, kind: np.array(values, dtype=kind).reshape(-1, 1)
    inputs = {
        "city": column(["Porto", "Évora", "Faro", "", "Lisboa", "Porto", "Lisboa"], object),
        "plan": column(["plus", "basic", "plus", "none", "basic", "plus", "basic"], object),
        "age": column([31, np.nan, 77, -1, 18, np.nan, 45], np.float32),
        "income": column([2e4, 1e7, 0, 1, 5e4, 3e3, 9e5], np.float32),
        "visits": column([0, 39, 20, 1000, 26, 25, 3], np.int64),
    }
    make = lambda: to_onnx(
        pipeline.fit(frame, bought), initial_types=types, options=options, target_opset=OPSET
    )
    return name, make, inputs
