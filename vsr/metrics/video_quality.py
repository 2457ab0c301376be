"""DOVER and FasterVQA as the scoring loop takes them. Their networks are imported when asked for: torchvision's models
take longer to import than a small clip to score."""

from vsr.metrics.metric import Clip, Metric, Scorer, Start
from vsr.metrics.settings import ScoreSettings
from vsr.metrics.weights import DOVER, FASTERVQA

DOVER_COLUMNS = ("dover_technical", "dover_aesthetic", "dover_overall")


def dover_metric() -> Metric:
    """DOVER as the scoring loop takes it."""
    return Metric(
        build=_build_dover,
        columns=DOVER_COLUMNS,
        define=_define_dover,
        needs_count=True,
        weights=lambda settings: (DOVER,),
        packages=("torchvision",),
    )


def _build_dover(settings: ScoreSettings) -> Start:
    from vsr.metrics.dover import Dover, DoverScorer
    from vsr.metrics.official import load_official

    network = Dover()
    load_official(network, DOVER.path)
    network.to(settings.device).eval()

    def start(clip: Clip) -> Scorer:
        return DoverScorer(network, clip, settings)

    return start


def _define_dover(settings: ScoreSettings) -> str:
    return (
        "{column} in [0, 1]: technical: 32 frames of each third, interval 2, 7x7 fragments of 32; aesthetic: 32 frames "
        "as 224x224 with antialias; overall: sigmoid(0.6104 t + 0.3896 a) of the rescaled outputs; "
        f"seed {settings.seed}; mean of clips"
    )


def fastervqa_metric() -> Metric:
    """FasterVQA as the scoring loop takes it."""
    return Metric(
        build=_build_fastervqa,
        columns=("fastervqa",),
        define=_define_fastervqa,
        needs_count=True,
        weights=lambda settings: (FASTERVQA,),
        packages=("torchvision",),
    )


def _build_fastervqa(settings: ScoreSettings) -> Start:
    from vsr.metrics.fastervqa import FasterVQA, FasterVQAScorer
    from vsr.metrics.official import load_official

    network = FasterVQA()
    load_official(network, FASTERVQA.path)
    network.to(settings.device).eval()

    def start(clip: Clip) -> Scorer:
        return FasterVQAScorer(network, clip, settings)

    return start


def _define_fastervqa(settings: ScoreSettings) -> str:
    frames = {
        "vqa_py": "32 successive frames in the middle, as its command line",
        "dataset": "8 x 4 frames, interval 2, as its evaluation on data sets",
    }[settings.sampling]
    return f"FasterVQA in [0, 1]: {frames}; 7x7 fragments of 32; seed {settings.seed}; mean of clips"
