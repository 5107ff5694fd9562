"""Every check of plugins can fail, each at a fault made on purpose; and none fails at the same component without it."""

import importlib
import json
import sys
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from dinomx_core import PluginError
from dinomx_core.cli import app
from dinomx_core.testing import check
from dinomx_core.testing.conform import all_checks, cases, findings
from dinomx_core.testing.findings import made
from dinomx_core.testing.subject import find
from tests.wheels import ROOT

BROKEN = "tests.broken_plugins."
PARTS = [  # module, component, check, what it says; the fault has the name of the check
    ("networks", "backbone faulty", "parameters", "it has 7680 parameters, and declares 7681"),
    ("networks", "backbone faulty", "blocks", "is 0; a parameter of block 0 is of layer 1"),
    ("networks", "backbone faulty", "tokens", "1 channels, 16 x 16 px: 15 patches on the grid (1, 4, 4); expected 16 on (1, 4, 4)"),
    ("networks", "backbone faulty", "gradients", "no gradient reaches 1 parameters; the first is unused"),
    ("networks", "backbone faulty", "deterministic", "the same images have other tokens the second time"),
    ("networks", "backbone faulty", "passes", "begun after 1 blocks, the tokens are others"),
    ("networks", "backbone faulty", "masks", "other pixels under the mask change the tokens"),
    ("networks", "backbone faulty", "bf16", "the tokens under bf16 are far from those of float32, or not finite"),
    ("networks", "backbone faulty", "export", "tensors fit the backbone"),
    ("networks", "head faulty", "sizes", "12 rows come out as (12, 8), expected (12, 9)"),
    ("networks", "head faulty", "gradients", "no gradient reaches unused.weight"),
    ("networks", "head faulty", "state", "a fresh head with its state gives something else"),
    ("networks", "target faulty", "probabilities", "torch.float32 logits become rows that are no probabilities"),
    ("networks", "target faulty", "state", "a fresh target with its state gives other probabilities"),
    ("losses", "loss faulty", "value", "the value is (16,) torch.float32, expected a scalar of torch.float32"),
    ("losses", "loss faulty", "gradients", "no gradient reaches the patches of the student's global"),
    ("losses", "loss faulty", "deterministic", "the same results cost "),
    ("losses", "loss faulty", "bf16", "it costs nan under bf16, "),
    ("losses", "loss faulty", "state", " once its state is taken over"),
    ("views", "augmentation faulty", "views", "1 channels: 2 crops of global, and 3 are declared"),
    ("views", "augmentation faulty", "seeds", "the same stream gives another crop 0 of global"),
    ("views", "augmentation faulty", "numbers", "torch.uint16: crop 0 of global is far from that of the same image in uint8"),
    ("views", "augmentation faulty", "workers", "step 1: the crops of global differ"),
    ("views", "augmentation faulty", "pickles", "Can't pickle local object"),
    ("views", "placement faulty", "inside", "the box (3, 4, 16, 20) becomes (3, 104, 16, 20) in an image of 40 x 48 px"),
    ("views", "placement faulty", "pickles", "Can't pickle local object"),
    ("views", "masking faulty", "masks", "of 12 crops of 42 patches it masks [43, 43, "),
    ("views", "masking faulty", "pickles", "Can't pickle local object"),
    ("views", "intensity faulty", "pixels", "1 channels of torch.uint8: pixels from 9.41177 to 278.824, and within 0..1 is declared"),
    ("views", "intensity faulty", "pickles", "Can't pickle local object"),
    ("views", "dataset faulty", "count", "it has 20 images, and `inspect` counts 21"),
    ("views", "dataset faulty", "torch-free", "`inspect` imports torch"),
    ("views", "dataset faulty", "items", 'the images 0 and 1 have the same id "image"'),
    ("views", "dataset faulty", "stateless", "image 0 is another when it is read again"),
    ("others", "strategy faulty", "declared", "model.layernorm.bias does not train, and the opposite is declared"),
    ("others", "strategy faulty", "trains", "model.layernorm.weight requires no gradient, and changes"),
    ("others", "evaluator faulty", "figures", 'the figure "norm" is nan, expected a finite float'),
    ("others", "evaluator faulty", "untouched", "it changes the model's training modes"),
    ("others", "command faulty", "help", "the function has no docstring, which is the command's help"),
    ("others", "recipe faulty", "plans", 'backbone.widht: unknown key; did you mean "width"?'),
    ("heavy", "plugin", "torch-free", f"importing {BROKEN}heavy imports torch"),
    ("silent", "plugin", "loads", "declares nothing: no function of its module is marked with @hookimpl"),
    ("untold", "plugin", "documented", 'evaluator untold: the option Inner.depth has no text; use option(default, "what it does")'),
    ("untold", "plugin", "built", 'evaluator "untold": cannot load tests.broken_plugins.untold:nowhere'),
]  # fmt: skip
SLOW = [
    (
        "losses",
        "loss faulty",
        "resume",
        "state",
        "cut off after step 2 and gone on with, metrics differ at step 2: loss, loss/faulty, gradient_norm (",
    ),
    (
        "others",
        "strategy faulty",
        "resume",
        "resume",
        "cut off after step 2 and gone on with, metrics differ at step 3: ",
    ),
    ("others", "strategy faulty", "export", "export", "the export's tokens differ from the checkpoint's by up to "),
    ("others", "parallelism apart", "processes", "", "after two steps the processes differ in "),
]
EXAMPLES = [  # check of a whole plugin, fault of the loss that its example picks, what it says
    ("example", "example", "step 1: the loss is not finite"),
    ("bf16", "bf16", "the loss is not finite"),
    ("channels", "channels", "3 channels"),
    (
        "resume",
        "state",
        "cut off after step 2 and gone on with, metrics differ at step 2: loss, loss/faulty, gradient_norm (",
    ),
    ("processes", "processes", "step 0: loss/faulty is "),
]


def finding(module, component, name, fault=""):
    """What one check finds of a component with a fault."""
    subject = find(BROKEN + module, {component: {"fault": fault}} if fault else {})
    found = [made(one, about) for one, about in cases(subject) if (str(about), one.name) == (component, name)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("module", "component", "name", "words"), PARTS)
def test_a_fault_is_found_with_what_and_remedy(module, component, name, words):
    faulty = component.endswith("faulty") and not component.startswith(("recipe", "command"))
    found = finding(module, component, name, name if faulty else "")
    assert found.state == "failed" and words in found.message, found
    assert found.contract and found.remedy
    if faulty:
        assert finding(module, component, name).state == "ok"


def test_a_loss_that_changes_what_it_is_given_is_found():
    found = finding("losses", "loss faulty", "gradients", "in place")
    assert found.message.startswith("it changes the cls of the teacher's global in place")


@pytest.mark.slow
@pytest.mark.parametrize(("module", "component", "name", "fault", "words"), SLOW)
def test_a_fault_that_shows_in_a_run_is_found(module, component, name, fault, words):
    found = finding(module, component, name, fault)
    assert found.state == "failed" and words in found.message, found
    if fault:
        assert finding(module, component, name).state == "ok"


@dataclass
class Package:
    """A package that pip might have installed in place."""

    folder: object

    def subject(self):
        importlib.invalidate_caches()
        return find("broken-package")

    def finding(self, name, component="plugin"):
        found = [
            made(one, about) for one, about in cases(self.subject()) if (str(about), one.name) == (component, name)
        ]
        return found[0]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """One that declares the faulty loss, and the recipe."""
    folder = tmp_path / "broken-package"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    (folder / "pyproject.toml").write_text('[project]\nname = "dinomx-broken-package"\n')
    (folder / "dinomx_broken_package").mkdir()
    (folder / "dinomx_broken_package" / "__init__.py").touch()
    (folder / "dinomx_broken_package" / "plugin.py").write_text(
        "from tests.broken_plugins.losses import dinomx_losses\n"
    )
    info = folder / "dinomx_broken_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: dinomx-broken-package\nVersion: 1.0\nRequires-Dist: dinomx\n"
    )
    (info / "entry_points.txt").write_text("[dinomx.plugins]\nbroken-package = dinomx_broken_package.plugin\n")
    yield Package(folder)
    for name in [name for name in sys.modules if name.startswith("dinomx_broken_package")]:
        del sys.modules[name]


def test_what_should_stand_beside_a_package_is_missed(package):
    found = package.finding("files")
    assert found.message.splitlines()[:2] == [
        f"there is no {package.folder}/README.md",
        f"there is no {package.folder}/example.toml",
    ]
    (package.folder / "README.md").write_text("The `faulty-loss`.")
    (package.folder / "example.toml").write_text("[run]\nsteps = 1\n")
    assert package.finding("files").message.startswith("README.md does not name the loss faulty")
    (package.folder / "README.md").write_text("`faulty`")
    assert package.finding("files").state == "ok"


def test_a_recipe_of_packages_that_are_not_asked_for_is_found(package):
    inside = package.folder / "dinomx_broken_package"
    (inside / "narrow.toml").write_text('recipe = "dinov1-small"\n')
    (inside / "plugin.py").write_text(
        "from dinomx_core import Recipe, hookimpl\n@hookimpl\ndef dinomx_recipes():\n"
        '    yield Recipe("narrow", "dinomx_broken_package:narrow.toml", "narrow")\n'
    )
    found = package.finding("requires", "recipe narrow")
    assert 'loss.dino is the loss "dino" of dinomx-dinov1' in found.message
    metadata = package.folder / "dinomx_broken_package-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text() + "Requires-Dist: dinomx-dinov1>=0.1\n")
    assert package.finding("requires", "recipe narrow").state == "ok"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault", "words"), EXAMPLES)
def test_an_example_that_shows_a_fault_is_found(package, name, fault, words):
    from dinomx_core.planning.document import to_toml
    from dinomx_core.testing.toy import CONFIG, changed

    found = {}
    for given in (fault, ""):
        loss = {"loss": {"neighbours": None, "faulty": {"fault": given}}, "report": None}
        (package.folder / "example.toml").write_text(to_toml(changed(CONFIG, loss)))
        found[given] = package.finding(name)
    assert found[fault].state == "failed" and words in found[fault].message, found[fault]
    assert found[""].state == "ok", found[""]


def test_every_check_is_shown_to_fail():
    shown = {(component.split()[0], name) for _, component, name, *_ in (*PARTS, *SLOW)}
    shown |= {("plugin", name) for name, *_ in EXAMPLES} | {("plugin", "files"), ("recipe", "requires")}
    assert {(one.kind, one.name) for one in all_checks()} - shown == {
        ("component", "options")
    }  # which is only ever skipped


def test_what_cannot_be_built_is_skipped_once_with_the_reason():
    found = [f for f in findings(find("interpret"), fast=True) if f.component == "evaluator localisation"]
    assert [(f.check, f.state) for f in found] == [("options", "skipped")]
    assert "evaluate.localisation.images: has no masks or boxes; give a manifest" in found[0].message


def test_a_plugin_that_does_not_load_has_one_finding():
    (found,) = check(BROKEN + "silent")
    assert (found.component, found.check, found.state) == ("plugin", "loads", "failed")


def test_a_package_is_found_by_its_folder():
    assert find(str(ROOT / "plugins" / "freeze")).plugin.name == find("freeze").plugin.name == "freeze"


def test_names_that_nobody_has_are_refused():
    with pytest.raises(PluginError) as caught:
        check("nothing-of-this-name")
    assert str(caught.value).startswith('no plugin is called "nothing-of-this-name"; installed: builtin, ')
    with pytest.raises(PluginError, match="tests.broken_plugins.absent"):
        check("tests.broken_plugins.absent")


def test_the_command_prints_each_check_and_ends_with_1_where_one_fails():
    done = CliRunner().invoke(app, ["plugin", "check", BROKEN + "untold", "--fast"])
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0] == "tests.broken_plugins.untold  (tests.broken_plugins.untold unpackaged)".replace(
        "tests.broken_plugins.untold  ", "untold  "
    )
    assert "failed   plugin                       documented" in lines
    assert lines[-1].endswith("skipped") and " failed, " in lines[-1]
    told = json.loads(CliRunner().invoke(app, ["plugin", "check", BROKEN + "silent", "--json"]).output)
    assert [(row["check"], row["state"]) for row in told] == [("loads", "failed")]


def test_each_check_is_an_item_of_its_own_and_fails_with_its_message(pytester):
    pytester.makepyfile(
        f'from dinomx_core.testing import conformance\n\ntest_conforms = conformance("{BROKEN}untold")\n'
    )
    done = pytester.runpytest("-p", "no:cacheprovider", "-k", "documented or torch-free or loads")
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(["*plugin: documented: evaluator untold: the class of its options has no docstring"])


def test_a_folder_that_is_no_package_is_no_plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=r'no plugin is called "\."; installed: builtin, '):
        find(".")
    (tmp_path / "pyproject.toml").write_text("x = = 1")
    with pytest.raises(PluginError, match=r"pyproject.toml is no TOML: Invalid value"):
        find(".")
