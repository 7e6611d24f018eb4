"""`gpu-select download`: published selector files or benchmark records, checked before they get their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gpu_select.commands import options

if TYPE_CHECKING:
    from gpu_select.download import Repository, RepoType, SavedFile, What

__all__ = ["command", "download"]

_REPO_IDS = {"models": "abdallah1008/semantic-router-ml-models", "data": "abdallah1008/ml-selection-benchmark-data"}
_REPO_TYPES: dict[str, RepoType] = {"models": "model", "data": "dataset"}
_FOLDERS = {"models": "models/", "data": "data/"}


@click.command(name="download")
@click.argument("what", type=click.Choice(["models", "data"]), required=False)
@click.option("--repo-id", metavar="ID", help="[default: see above]")
@click.option("--repo-type", type=click.Choice(["model", "dataset"]), help="[default: see above]")
@click.option("--file", "names", multiple=True, metavar="NAME", help="This file only; may be repeated.")
@click.option("--revision", default="main", show_default=True, metavar="REV", help="A branch, a tag or a commit.")
@click.option("--output-dir", metavar="DIR", help="Where the files go.  [default: see above]")
@click.option("--token", help="For private and gated repositories.  [default: HF_TOKEN, or what `hf auth login` keeps]")
@click.option("--json", "json_path", metavar="OUT", help="Write what was got as JSON too.")
def command(**settings: Any) -> None:
    """Get published selectors (models, the default) or benchmark records (data) from a hub.

    \b
    models: abdallah1008/semantic-router-ml-models (a model repository) -> models/
    data:   abdallah1008/ml-selection-benchmark-data (a dataset) -> data/

    Each file is loaded before it gets its name, an interrupted download goes on where it stopped, and what is there
    already is left alone. HF_ENDPOINT names another hub than huggingface.co.
    """
    download(**settings)


def download(
    *,
    what: What | None = None,
    repo_id: str | None = None,
    repo_type: RepoType | None = None,
    names: tuple[str, ...] = (),
    revision: str = "main",
    output_dir: str | None = None,
    token: str | None = None,
    json_path: str | None = None,
) -> None:
    """List, fetch, load, name; one line a file. A broken file does not keep the others from coming."""
    from gpu_select.download import Connection, check_names, choose, kind_of, open_repository, save, size_text
    from gpu_select.errors import DataError
    from gpu_select.files import check_writable

    check_names(names)
    if what is None:
        what = "data" if names and all(kind_of(name) == "records" for name in names) else "models"
    folder = output_dir or _FOLDERS[what]
    connection = Connection(token)
    repository = open_repository(connection, repo_id or _REPO_IDS[what], repo_type or _REPO_TYPES[what], revision)
    files = choose(repository, what, names)
    check_writable(folder)
    click.echo(f"{repository.repo_type} repository {repository.repo_id} at {repository.commit}")
    saved, problems = [], []
    for file in files:
        try:
            with options.progress_bar(file.name, "B", file.n_bytes) as bar:
                got = save(repository, file, folder, progress=bar.update)
        except DataError as error:
            problems.append(str(error))
            continue
        saved.append(got)
        for text in got.contents.warnings:
            options.warn(text)
        unchanged = "" if got.is_new else " (was there already)"
        click.echo(f"{got.path}: {size_text(got.n_bytes)}, {got.contents.words}{unchanged}")
    if json_path is not None:
        _write(json_path, repository, revision, saved, problems)
    if problems:
        raise DataError("; ".join(problems))


def _write(path: str, repository: Repository, revision: str, saved: list[SavedFile], problems: list[str]) -> None:
    from gpu_select import jsonio
    from gpu_select.files import atomic_write

    document = {
        "endpoint": repository.connection.shown,
        "repo_id": repository.repo_id,
        "repo_type": repository.repo_type,
        "revision": revision,
        "commit": repository.commit,
        "files": [
            {"name": f.name, "path": str(f.path), "bytes": f.n_bytes, "is_new": f.is_new, "holds": f.contents.facts}
            for f in saved
        ],
        "problems": problems,
    }
    with atomic_write(path) as stream:
        stream.write(jsonio.dumps(document) + b"\n")
