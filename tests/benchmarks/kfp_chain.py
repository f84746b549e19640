"""A chain of empty steps under kfp's local runner; runner_overhead.py starts it in a venv that has kfp."""

import argparse

from kfp import dsl, local


def first(out: dsl.Output[dsl.Artifact]):
    with open(out.path, "w") as file:  # noqa: PTH123  kfp runs this source alone, without imports
        file.write("")


def follow(text: dsl.Input[dsl.Artifact], out: dsl.Output[dsl.Artifact]):
    with open(out.path, "w") as file:  # noqa: PTH123
        file.write("")


def run(num_steps: int, folder: str, install_kfp_package: bool) -> None:
    options = {"base_image": "python:3.11", "install_kfp_package": install_kfp_package}
    first_step, next_step = dsl.component(first, **options), dsl.component(follow, **options)

    @dsl.pipeline
    def chain():
        task = first_step()
        for _ in range(num_steps - 1):
            task = next_step(text=task.output)

    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=folder)
    chain()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_steps", type=int)
    parser.add_argument("folder")
    parser.add_argument("--install-kfp-package", action="store_true", help="kfp's default: pip runs in every step")
    arguments = parser.parse_args()
    run(arguments.num_steps, arguments.folder, arguments.install_kfp_package)
