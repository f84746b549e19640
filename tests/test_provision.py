"""provision.sh makes what its plan shows, once, in files that azure-ai-ml takes, and stops at the first refusal.

A stand-in for `az` keeps what it is told to make; the flags that it may be given are those of the Azure CLI.
"""

import re
import shlex
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import lint
from lint_rules.documents import read

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "scripts" / "provision"
SCRIPT = FOLDER / "provision.sh"
EXAMPLE = (FOLDER / "example.env").read_text(encoding="utf-8")
PRINCIPAL = "11111111-2222-3333-4444-555555555555"
GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/slm-dev/providers"
AZ = f"""#!/bin/bash
# Notes its arguments; `show` finds what was made before; AZ_REFUSES names the command that fails.
printf '%s\\0' "$@" $'\\n' >>"$AZ_HOME/calls"
kind=() name=''
while [ $# -gt 0 ]; do
  case $1 in
    --name | --rule) name=$2 ;;
    --query) query=$2 ;;
    -*) in_flags=yes ;;
    *) [ -n "$in_flags" ] || kind+=("$1") ;;
  esac
  case $1 in -*) in_flags=yes ;; esac
  shift
done
if [ "${{kind[*]}}" = "$AZ_REFUSES" ]; then
  printf 'WARNING: noise\\nERROR: (AuthorizationFailed) You may not do that.\\nCode: AuthorizationFailed\\n' >&2
  exit 1
fi
made="$AZ_HOME/${{kind[*]:0:${{#kind[@]}}-1}} $name"
case ${{kind[*]}} in
  'account show' | 'extension show') ;;
  *' show')
    [ -e "$made" ] || {{ echo "ERROR: (ResourceNotFound) $name was not found." >&2; exit "${{AZ_ABSENT:-3}}"; }}
    [ -z "$query" ] || echo {PRINCIPAL} ;;
  *) : >"$made" ;;
esac
"""
# From `az COMMAND --help` of azure-cli 2.91 and, for az ml, its reference pages and source.
SHARED = {"--subscription", "--only-show-errors", "--output", "--query"}
IN_GROUP = {"--name", "--resource-group"}
IN_WORKSPACE = {"--name", "--resource-group", "--workspace-name"}
FLAGS = {
    "account show": set(),
    "extension show": {"--name"},
    "group show": {"--name"},
    "group create": {"--name", "--location"},
    "identity show": IN_GROUP,
    "identity create": IN_GROUP | {"--location"},
    "identity federated-credential show": IN_GROUP | {"--identity-name"},
    "identity federated-credential create": IN_GROUP | {"--identity-name", "--issuer", "--subject", "--audiences"},
    "storage account show": IN_GROUP,
    "storage account create": IN_GROUP
    | {"--location", "--sku", "--allow-shared-key-access", "--allow-blob-public-access", "--min-tls-version"}
    | {"--enable-hierarchical-namespace"},
    "storage container-rm show": IN_GROUP | {"--storage-account"},
    "storage container-rm create": IN_GROUP | {"--storage-account"},
    "acr show": IN_GROUP,
    "acr create": IN_GROUP | {"--location", "--sku", "--admin-enabled"},
    "keyvault show": IN_GROUP,
    "keyvault create": IN_GROUP | {"--location", "--enable-rbac-authorization", "--enable-purge-protection"},
    "keyvault key show": {"--name", "--vault-name"},
    "keyvault key import": {"--name", "--vault-name", "--pem-file", "--ops"},
    "role assignment create": {"--assignee-object-id", "--assignee-principal-type", "--role", "--scope"},
    "ml workspace show": IN_GROUP,
    "ml workspace create": IN_GROUP | {"--file", "--location", "--set"},
    "ml workspace outbound-rule show": {"--rule", "--workspace-name", "--resource-group"},
    "ml workspace outbound-rule set": {"--rule", "--workspace-name", "--resource-group", "--type"}
    | {"--service-resource-id", "--subresource-target", "--spark-enabled"},
    "ml registry show": IN_GROUP,
    "ml registry create": IN_GROUP | {"--file", "--set"},
    "ml compute create": IN_WORKSPACE | {"--file", "--location", "--set"},
    "ml datastore create": IN_WORKSPACE | {"--file", "--set"},
    "ml connection create": IN_WORKSPACE | {"--file", "--set"},
    "ml online-endpoint show": IN_WORKSPACE,
    "ml online-endpoint create": IN_WORKSPACE | {"--file", "--set"},
}


@dataclass(frozen=True)
class Call:
    command: str
    flags: dict[str, list[str]]

    @classmethod
    def of(cls, words: list[str]) -> "Call":
        start = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
        flags: dict[str, list[str]] = {}
        for word in words[start:]:
            if word.startswith("--"):
                flag = flags.setdefault(word, [])
            else:
                flag.append(word)
        return cls(" ".join(words[:start]), flags)

    def one(self, flag: str) -> str:
        (value,) = self.flags[flag]
        return value

    @property
    def key(self) -> tuple[str, str]:
        """What is made, without what only a run or only the plan says."""
        shown = {flag: value for flag, value in self.flags.items() if flag not in ("--output", "--only-show-errors")}
        shown.pop("--assignee-object-id", None)
        return self.command, repr(sorted(shown.items()))


class Azure:
    """A subscription that keeps what it is told to make."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.values = home / "dev.env"
        self.values.write_text(EXAMPLE.replace("OWNER/REPOSITORY", "contoso/slm"), encoding="utf-8")
        (home / "bin").mkdir()
        (home / "bin" / "az").write_text(AZ)
        (home / "bin" / "az").chmod(0o755)

    def run(self, *flags: str, has_az: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.home / 'bin'}:/usr/bin:/bin" if has_az else "/usr/bin:/bin"
        environment = {"PATH": path, "AZ_HOME": str(self.home)} | variables
        command = ["bash", str(SCRIPT), *flags, str(self.values)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def calls(self) -> list[Call]:
        """Those since the last time that they were asked for."""
        file = self.home / "calls"
        lines = file.read_text(encoding="utf-8").split("\0\n\0")[:-1] if file.exists() else []
        file.unlink(missing_ok=True)
        return [Call.of(line.split("\0")) for line in lines]


@pytest.fixture
def azure(tmp_path):
    return Azure(tmp_path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The plan, a run that starts from nothing, and the calls of the run after it."""
    azure = Azure(tmp_path_factory.mktemp("azure"))
    key = azure.home / "app's key.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nabc\n")
    plan = azure.run("--dry-run", "--github-app-key", str(key), has_az=False)
    assert (plan.returncode, plan.stderr, azure.calls()) == (0, "", [])
    results = []
    for _ in range(2):
        done = azure.run("--github-app-key", str(key))
        assert (done.returncode, done.stderr) == (0, "")
        results.append(azure.calls())
    return plan.stdout, *results


def made(calls: list[Call]) -> list[Call]:
    return [call for call in calls if not call.command.endswith(" show")]


def test_the_plan_is_what_a_run_makes(runs):
    plan, first, _ = runs
    assert subprocess.run(["bash", "-n"], input=plan, text=True, check=False).returncode == 0
    lines = [line for line in plan.splitlines() if not line.startswith("#")]
    planned = [Call.of(shlex.split(line)[1:]) for line in lines if not line.endswith(" ||")]
    assert {shlex.split(line)[0] for line in lines} == {"az"}
    assert [call.key for call in planned] == [call.key for call in made(first)]
    assert len(planned) > 40


def test_commands_and_flags_are_those_of_the_azure_cli(runs):
    for call in runs[1]:
        assert call.flags.keys() <= FLAGS[call.command] | SHARED, call
    assert {call.command for call in runs[1]} == FLAGS.keys()
    for call in runs[1]:
        if call.command not in ("extension show",):
            assert call.one("--subscription") == "00000000-0000-0000-0000-000000000000", call


def test_order(runs):
    """Each thing after what it needs."""
    commands = [call.command for call in made(runs[1])]
    order = ["group create", "identity create", "storage account create", "acr create", "ml workspace create"]
    order += ["ml workspace outbound-rule set", "ml registry create", "ml compute create", "ml online-endpoint create"]
    assert sorted(order, key=commands.index) == order
    roles_of_jobs = max(index for index, call in enumerate(made(runs[1])) if call.command == "role assignment create")
    assert roles_of_jobs < commands.index("ml compute create")
    hub, project = (call for call in made(runs[1]) if call.command == "ml workspace create")
    assert (hub.one("--name"), project.one("--name")) == ("slm-hub-dev", "slm-dev")


def test_a_second_run_makes_nothing_twice(runs):
    """Roles that are there are left by Azure; computes, datastores and connections are brought up to date."""
    again = {call.command for call in made(runs[2])}
    assert again == {"role assignment create", "ml compute create", "ml datastore create", "ml connection create"}


def test_the_private_key_is_a_file_for_az_alone(runs):
    plan, first, _ = runs
    (imported,) = (call for call in first if call.command == "keyvault key import")
    assert imported.one("--pem-file").endswith("/app's key.pem")
    assert imported.one("--ops") == "sign"
    assert "PRIVATE KEY" not in plan + repr(first)


def test_roles_are_narrow_and_those_of_the_readme(runs):
    grants = [call for call in runs[1] if call.command == "role assignment create"]
    assert {call.one("--assignee-object-id") for call in grants} == {PRINCIPAL}
    assert not {call.one("--role") for call in grants} & {"Owner", "Contributor", "User Access Administrator"}
    on_group = {call.one("--role") for call in grants if "/providers/" not in call.one("--scope")}
    assert on_group == {"Monitoring Contributor"}
    of_keys = {call.one("--role"): call.one("--scope") for call in grants if "Key Vault" in call.one("--role")}
    assert of_keys == {
        "Key Vault Crypto User": f"{GROUP}/Microsoft.KeyVault/vaults/slm-keys-dev/keys/github-app",
        "Key Vault Secrets User": f"{GROUP}/Microsoft.KeyVault/vaults/slm-keys-dev/secrets/pii-key",
    }
    table = (FOLDER / "README.md").read_text(encoding="utf-8").partition("| who")[2]
    by_hand = {"Owner", "Contributor", "Role Based Access Control Administrator", "Key Vault Crypto Officer"}
    assert {call.one("--role") for call in grants} == set(re.findall(r"`([A-Z][A-Za-z ]+)`", table)) - by_hand


def test_workflows_sign_in_from_one_environment_of_one_repository(runs):
    (trust,) = (call for call in runs[1] if call.command == "identity federated-credential create")
    assert trust.one("--subject") == "repo:contoso/slm:environment:dev"
    assert trust.one("--issuer") == "https://token.actions.githubusercontent.com"


def loaded(call: Call) -> dict:
    """What azure-ai-ml sends for the file of a call with its --set, as the ml extension has it."""
    from azure.ai.ml.entities import _load_functions

    kind = call.command.split()[1].replace("online-endpoint", "online_endpoint")
    overrides = [dict([value.split("=", 1)]) for value in call.flags.get("--set", [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entity = getattr(_load_functions, f"load_{kind}")(ROOT / call.one("--file"), params_override=overrides)
        if kind == "online_endpoint":
            return entity._to_rest_online_endpoint(location="japaneast").as_dict()
        return entity._to_rest_object().as_dict()


def test_azure_ai_ml_takes_the_files_with_what_is_filled_in(runs):
    sent = {call.one("--file"): loaded(call) for call in runs[1] if "--file" in call.flags}
    files = {path.relative_to(ROOT).as_posix() for path in FOLDER.rglob("*.yml")}
    assert sent.keys() == files | {"components/deploy_endpoint/specs/endpoint.yml"}
    sent = {Path(file).stem: body for file, body in sent.items()}
    hub = sent["hub"]["properties"]
    assert hub["storageAccount"] == f"{GROUP}/Microsoft.Storage/storageAccounts/slmworkspacedev"
    assert hub["containerRegistry"] == f"{GROUP}/Microsoft.ContainerRegistry/registries/slmimagesdev"
    assert hub["managedNetwork"]["isolationMode"] == "AllowOnlyApprovedOutbound"
    assert hub["systemDatastoresAuthMode"] == "identity"
    assert sent["project"]["properties"]["hubResourceId"].endswith("/workspaces/slm-hub-dev")
    assert [region["location"] for region in sent["registry"]["properties"]["regionDetails"]] == ["japaneast"]
    for name in ("cpu-cluster", "gpu-cluster", "gpu-cluster-8x"):
        nodes = sent[name]["properties"]["properties"]
        assert list(sent[name]["identity"]["userAssignedIdentities"]) == [
            f"{GROUP}/Microsoft.ManagedIdentity/userAssignedIdentities/slm-jobs"
        ]
        assert (nodes["scaleSettings"]["minNodeCount"], nodes["vmPriority"]) == (0, "LowPriority")
        assert (nodes["enableNodePublicIp"], nodes["remoteLoginPortPublicAccess"]) == (False, "Disabled")
    for name in ("raw-data", "data-lake"):
        assert sent[name]["properties"]["credentials"] == {"credentialsType": "None"}
        assert sent[name]["properties"]["accountName"] == "slmdatadev"
    for name, url in {
        "azure-openai": "slm-openai.openai.azure.com",
        "ai-search": "slm-search.search.windows.net",
    }.items():
        connection = sent[name]["properties"]
        assert (connection["authType"], connection["target"]) == ("AAD", f"https://{url}/")


def test_the_files_are_seen_for_what_they_are():
    """A file of no known kind would pass the lint unchecked."""
    kinds = {path.relative_to(FOLDER).as_posix(): read(path).kind for path in lint.yaml_files([FOLDER])}
    singular = {"datastores": "datastore", "connections": "connection", "compute": "compute"}
    top = {"hub.yml": "workspace", "project.yml": "workspace", "registry.yml": "registry"}
    assert kinds == {file: top.get(file) or singular[file.split("/")[0]] for file in kinds}
    assert len(kinds) == 10


def test_there_is_each_compute_that_a_preset_names():
    named = set()
    for preset in (ROOT / "pipelines" / "presets").glob("*.yml"):
        named |= set((yaml.safe_load(preset.read_text(encoding="utf-8")).get("compute") or {}).values())
    assert named == {path.stem for path in (FOLDER / "compute").glob("*.yml")}
    assert {yaml.safe_load(path.read_text())["name"] for path in (FOLDER / "compute").glob("*.yml")} == named


def test_without_openai_search_and_group(azure):
    azure.values.write_text(
        re.sub(r"^(AZURE_OPENAI_ID|AZURE_SEARCH_ID)=.*", r"\1=", EXAMPLE, flags=re.MULTILINE).replace(
            "DATA_SCIENTISTS_GROUP_ID=",
            f"DATA_SCIENTISTS_GROUP_ID={PRINCIPAL}\r",  # as an editor on Windows leaves it
        )
    )
    plan = azure.run("--dry-run", has_az=False).stdout
    assert "ml connection" not in plan
    assert "OpenAI" not in plan
    assert plan.count(f"--assignee-object-id {PRINCIPAL} --assignee-principal-type Group") == 3


@pytest.mark.parametrize("command", ["group create", "identity show", "ml workspace create", "ml compute create"])
def test_a_refusal_stops_it_with_one_line(azure, command):
    """Also one of `show`: what may not be seen is not made."""
    done = azure.run(AZ_REFUSES=command)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"provision.sh: error: ERROR: \(AuthorizationFailed\) .* \[exit code 1 of: az {command} .*\]\n", done.stderr
    )
    assert azure.calls()[-1].command == command


def test_goes_on_where_it_stopped(azure):
    """The ml extension says in words, not by exit code 3, that something is not there."""
    azure.run(AZ_REFUSES="ml workspace create", AZ_ABSENT="1")
    before = {call.command for call in made(azure.calls())}
    assert azure.run(AZ_ABSENT="1").returncode == 0
    after = {call.command for call in made(azure.calls())}
    assert before & after == {"ml workspace create"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("AZURE_LOCATION=japaneast", "AZURE_LOCATION=Japan East"), "AZURE_LOCATION is 'Japan East'"),
        (("AZURE_LOCATION=japaneast\n", ""), "AZURE_LOCATION is ''"),
        (("AZURE_KEY_VAULT=slm-keys-dev", "AZURE_KEY_VAULT=$(touch HOME/x)"), "AZURE_KEY_VAULT is '$(touch"),
        (("AZURE_KEY_VAULT=", "PATH="), "dev.env:15: write NAME=VALUE"),
        (("AZURE_KEY_VAULT=slm-keys-dev", "touch HOME/x"), "dev.env:15: write NAME=VALUE"),
        (("AZURE_KEY_VAULT=", "x[$(touch HOME/x)]="), "dev.env:15: write NAME=VALUE"),
        (("slmdatadev", "slmdata_dev"), "AZURE_DATA_STORAGE_ACCOUNT is 'slmdata_dev'"),
        (("OWNER/REPOSITORY", "OWNER/REPOSITORY:ref:x"), "GITHUB_REPOSITORY is"),
        (("OWNER/REPOSITORY", "OWNER/REPOSITORY"), "GITHUB_REPOSITORY is that of the example"),
        (("slm-dev\n", "slm-dev --yes\n"), "AZURE_RESOURCE_GROUP is"),
        (("accounts/slm-openai", "accounts/x/../../y"), "AZURE_OPENAI_ID is"),
    ],
)
def test_bad_values_are_refused_before_anything_is_asked(azure, change, said):
    old, new = change
    assert old in EXAMPLE
    azure.values.write_text(EXAMPLE.replace(old, new.replace("HOME", str(azure.home)), 1))
    done = azure.run()
    assert done.returncode == 1
    assert done.stderr.startswith("provision.sh: error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert azure.calls() == []
    assert not (azure.home / "x").exists()


def test_what_is_missing_is_said(azure):
    assert "install the Azure CLI" in azure.run(has_az=False).stderr
    assert "az extension add --name ml" in azure.run(AZ_REFUSES="extension show").stderr
    assert "(AuthorizationFailed)" in azure.run(AZ_REFUSES="account show").stderr
    assert "--help tells" in azure.run("--delete").stderr
    assert "no-key.pem is not there" in azure.run("--github-app-key", "no-key.pem").stderr
    assert "provision.sh [--dry-run]" in azure.run("--help").stdout
    azure.values.unlink()
    assert "copy scripts/provision/example.env" in azure.run().stderr
