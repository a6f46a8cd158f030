"What each report asked, and what came of it: a few sentences, with numbers of the packs."

from pathlib import Path

from claim_rows import PACKS, failing_files, mark
from lists import with_claims
from scipy.stats import norm
from tables import Table

from deepfake_nb.evaluation.power import detectable_difference
from deepfake_nb.reporting.verdicts import measure, model_names, read_pack_scores

#: Forbush's recipe: each change alone, by the data that it was tried on → pack.
CHANGES = ("faces", "balance", "more epochs", "lower rate")
CHANGED_ON = {
    "FaceForensics++": "forbush-faceforensics",
    "dfdc-faces": "forbush-dfdc-faces",
    "rendered people": "forbush-synthetic-dfdc-confirmation",
}
#: What stood in for Torlapati's ResNet50, by the data → pack.
FED_ON = {
    "rendered people": "torlapati-synthetic-faces-confirmation",
    "dfdc-faces": "torlapati-dfdc-faces",
    "real-and-fake-face": "torlapati-real-and-fake-face",
}
#: Where networks were trained and tested to mark what was changed.
LOCALISED = (
    ("dfdc-faces", "kaminskyi-dfdc-faces", ("Unet", "Unet_v1")),
    ("FaceForensics++", "kaminskyi-faceforensics", ("Unet", "Unet_v1")),
    ("rendered people", "kaminskyi-synthetic-faces-confirmation", ("U-Net",)),
)
FED = "MobileNetV2-0.35, as ResNet50 gets them, batch statistics"
SOUND = "MobileNetV2-0.35, scaled for the base, stored statistics"
LIKE_DENSENET = "MobileNetV2-0.35, as DenseNet121 gets them, batch statistics"


class Facts:
    "Numbers of packs, and verdicts of the ledger, as text."

    def __init__(self, root: Path, ledger):
        self.root, self.entries, self.read = root, ledger.set_index(["claim", "source"]), {}

    def scores(self, pack: str):
        "The scores of a pack, read once."
        if pack not in self.read:
            self.read[pack] = read_pack_scores(self.root / PACKS / pack / "scores.csv.gz")
        return self.read[pack]

    def of(self, pack: str, model: str, part: str, against: str | None = None, metric="AUC") -> str:
        "A number of a model, or its difference from another's."
        number = measure(self.scores(pack), model, part, against, metric)
        return told(number, "+" if against else "")

    def shows(self, pack: str, model: str, part: str, against: str) -> float:
        "The smallest difference that such data show four times in five."
        number = measure(self.scores(pack), model, part, against)
        return detectable_difference((number.high - number.low) / (2 * norm.isf(0.025)))

    def overlap(self, pack: str, network: str) -> str:
        "The Dice of a network on fakes alone: a real image without a mark would count as 1."
        fakes = self.scores(pack).query("label == 1")
        return told(measure(fakes, f"Dice, {network}", "values of pixels", metric="mean"))

    def groups(self, pack: str, part: str, label: int | None = None) -> int:
        "Independent groups of one class, or of the smaller one."
        rows = self.scores(pack).query("part == @part")
        counts = rows.groupby("label")["group"].nunique()
        return int(counts.min() if label is None else counts[label])

    def verdict(self, claim: int, source: str = "own data") -> str:
        "A verdict, which leads to its explanation, and its claim, which leads to its row."
        word = self.entries.loc[(claim, source), "verdict"]
        return f'{mark(word)} (<a href="#claim-{claim}">{claim}</a>)'


def told(found, sign: str = "") -> str:
    "A number and its interval."
    value, low, high = (f"{x:{sign}.3f}" for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def briefs(root: Path, ledger) -> str:
    "The table of what came of each report's question."
    facts = Facts(root, ledger)
    rows = [
        [f'<a href="papers/{one.__name__}.html">{one.__name__.capitalize()}</a>', one(facts)]
        for one in (denholtz, forbush, kaminskyi, torlapati, kun)
    ]
    return Table.of(["report", "what came of its question"], rows).html()


def denholtz(facts: Facts) -> str:
    "Views, and the conditional loss."
    pack, part = "denholtz-dfdc-faces", "held out"
    full, crop, levels = (
        facts.of(pack, view, part) for view in ("full image", "face crop", "error level analysis")
    )
    return f"""\
No claim of the report states an accuracy that could be reached: its results were in figures that
the text does not carry. Our AUC on dfdc-faces ({facts.groups(pack, part)} groups) is {full} with
the full image, {crop} with a crop and {levels} with error levels. That both views lower the loss:
{facts.verdict(7)}. That the conditional loss helps: {facts.verdict(8)}, since networks that stall
stay at chance with it and without."""


def forbush(facts: Facts) -> str:
    "Each of the four changes alone."
    part, lines = "development", []
    for name in CHANGES:
        changed = [
            f"{facts.of(pack, name, part, 'first')} on {on}"
            for on, pack in CHANGED_ON.items()
            if name in model_names(facts.scores(pack))
        ]
        lines.append(f"<li>{name}: {', '.join(changed)}</li>")
    counts = [f"{facts.groups(pack, part)} groups of {on}" for on, pack in CHANGED_ON.items()]
    shows = facts.shows("forbush-faceforensics", "faces", part, "first")
    return f"""\
None of the four changes is shown to help on real data. That faces and more epochs help:
{facts.verdict(17, "other real data")} on FaceForensics++. No rule judges the others, or those on
dfdc-faces, which holds faces alone and is trained at ten times the rates. AUC with one change less
that of the first recipe ({", ".join(counts)}):<ul>{"".join(lines)}</ul>FaceForensics++ has few
groups: four times in five, they would show a gain by faces only if it were about {shows:.2f} or
more. The accuracies of 86.5 % and 94 %: {facts.verdict(15)}, {facts.verdict(16)}, since the
report's sample is not at hand."""


def kaminskyi(facts: Facts) -> str:
    "Whether a network finds the place, by the Dice on fakes."
    part, lines = "values of pixels", []
    for on, pack, networks in LOCALISED:
        found = ", ".join(f"{facts.overlap(pack, name)} ({name})" for name in networks)
        lines.append(f"<li>{on}, {facts.groups(pack, part, 1)} groups: {found}</li>")
    return f"""\
No network of ours is shown to find the place of a change in a real face. The report's Dice is
lost, and no rule judges ours, on fakes:<ul>{"".join(lines)}</ul>On dfdc-faces both networks mark
nothing. {with_claims("Claim 27 and claim 28")} judge masks that are made from pairs of a real and a
fake image, not by a network."""


def torlapati(facts: Facts) -> str:
    "Whether ResNet50 was the worst, by what stood in for it."
    auc, loss, order = (
        ", ".join(
            f"{facts.of(pack, FED, part, against, metric=metric)} on {on}"
            for on, pack in FED_ON.items()
        )
        for part, against, metric in (
            ("evaluation", SOUND, "AUC"),
            ("validation", SOUND, "log loss"),
            ("validation", LIKE_DENSENET, "log loss"),
        )
    )
    counts = [f"{facts.groups(pack, 'evaluation')} groups of {on}" for on, pack in FED_ON.items()]
    return f"""\
Open. That ResNet50 is the worst: {facts.verdict(54)}; its weights were unavailable, too. What wrong
input does was tried on MobileNetV2 with the pixels that ResNet50 got and the statistics of batches,
against the right ones (test: {", ".join(counts)}):<ul><li>test AUC: {auc}</li><li>validation loss,
which the report compares: {loss}</li><li>validation loss, less that with DenseNet121's pixels:
{order}</li></ul>If wrong input gave the report's order, the last would be above 0. No rule judges
these numbers, and ResNet50 may differ."""


def kun(facts: Facts) -> str:
    "The printed AUC, and what else could give it."
    pack, part, other = "kun-uadfv", "evaluation", "other database"
    size = failing_files("uadfv", facts.root)[0]
    alone = f"{1 - size['auc']:.2f} [{1 - size['high']:.2f}, {1 - size['low']:.2f}]"
    return f"""\
The AUC of 0.78 on UADFV, the report's data: {facts.verdict(66)} on the evaluation videos
({facts.of(pack, "svm poly", part)}, {facts.groups(pack, part)} groups) and {facts.verdict(62)} on
the development videos, where ours is higher ({facts.of(pack, "svm poly", "development")},
{facts.groups(pack, "development")} groups). The size of the files alone has an AUC of {alone}; the
gate finds the system better. The four corners of the images, where a trace of the complete file
should show, have {facts.of(pack, "corners", part)} with the same features. A trace of the face crop
that is no manipulation is not excluded. Compressed to JPEG 50, the system has
{facts.of(pack, "JPEG 50", part)}; on FaceForensics++ ({facts.groups(pack, other)} groups), without
training there, {facts.of(pack, "svm poly", other)}."""
