"""Page 6: what the numbers are, and how to have them again."""

from __future__ import annotations

import gradio as gr

from eval.protocols import PROTOCOLS

_TEXT = """
## What is measured

The study *A Broad Study on the Transferability of Visual Representations with Contrastive Learning*
(Islam et al., ICCV 2021) asks which pretraining objective gives features that transfer: cross-entropy
(CE), self-supervised contrastive (SelfSupCon), supervised contrastive (SupCon), or one of these joined
with the self-supervised term. This board keeps the question open: every backbone that timm can load
meets the same images and the same episodes.

{protocols}

**Intervals** are 95 % and say of which chance they speak: few-shot, k nearest neighbours and linear of
*another sample of the data set*, protocols that train a network of *other test images, the same
training*. None speaks of another training of the backbone. † marks few-shot scores of an earlier version,
whose interval is over other episodes of the same images alone.

**Tie groups and places**: all pairs of models in view are compared at once on the same episodes or
images, by the mean over the data sets in view; with 95 % all that is said of a board is right together.
The first model of a group is its leader, the others cannot be told from it. A place such as 2-5 is where
the model could stand. AP of detection is not a mean over images: there the test is over its values in the
same resamples of the test images. Two intervals that overlap are no tie, and two that do not are not needed for a difference.

**Means** are over the data sets in view, which are taken as given, for models that have them all. `*` marks a subset of a data
set. **Transfer** is a score on images that a model was not pretrained on: `‡` marks the others, which are shown apart and
count in no mean, rank or comparison, on any page. What a model was pretrained on, its objective and its architecture are *as
its author declares them*, in the recipe of its training, its `config.json` or the metadata of its card; what none of these says
is *unknown*, and a name is never read for it. Of training data that were not declared, or never listed, nobody can say
which of these sets they hold: the board says so in their row.

## How to have a number again

Click it: the receipt names the commit and the hash of the weights, the hash of the split, settings,
versions and seconds, and the command. `transfer-eval verify FILE` computes it anew and says equal, within
tolerance, or what differs.

## How to add a model

Submit it on the page *Submit*, or score it yourself and offer the results:

```bash
transfer-eval run hf-hub:ORG/NAME --data DATA --suite subsets
transfer-eval push results ORG/results
```

## With the keyboard

Tab reaches tabs, fields and buttons in the order in which they stand. On the board it reaches the heads of columns (Enter
sorts), the names (Enter opens the card) and one number: from there the arrows go from number to number, and Enter opens
the receipt.

## How to cite

```bibtex
@inproceedings{{islam2021broad,
  title     = {{A Broad Study on the Transferability of Visual Representations with Contrastive Learning}},
  author    = {{Islam, Ashraful and Chen, Chun-Fu (Richard) and Panda, Rameswar and Karlinsky, Leonid and Radke, Richard and Feris, Rogerio}},
  booktitle = {{Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)}},
  pages     = {{8845--8855}},
  year      = {{2021}}
}}
```

## For scripts

What these pages show has a name in the API; its names and types are in
[`/gradio_api/openapi.json`](/gradio_api/openapi.json), and each endpoint is shown with code under `?view=api`.
Every answer has the same names each time, and under `error` a sentence where something was wrong:

```python
from gradio_client import Client

board = Client("URL")
found = board.predict(board="linear/top1", api_name="/leaderboard")
print(found["headline"])
for row in found["rows"]:  # percent, best first
    print(row["model"], row["mean"], row["places"], row["training_data"])
pair = board.predict(a=found["rows"][0]["model"], b=found["rows"][1]["model"], api_name="/compare")
for shared in pair["boards"]:  # fractions of one
    print(shared["board"], [(t["task"], t["difference"], t["verdict"]) for t in shared["tasks"]])
```
"""  # noqa: E501  (a BibTeX entry and shell lines as they are copied)


def about() -> gr.Markdown:
    """The page."""
    lines = [f"- **{p.name}**: {p.summary}." for p in PROTOCOLS.values()]
    return gr.Markdown(_TEXT.format(protocols="\n".join(lines)))
