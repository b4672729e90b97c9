"""Versions of one model in MLflow: their files, their aliases, and the ledger's anchored head.

A version is ours once it stands in the registry with the hash of its content; before that its files
are a run that nobody takes for a version. Knows nothing of who ought to be champion.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.errors import UserError
from distill.production.registry.connection import connect, missing, talking_to
from distill.redaction import without_passwords

CONTENT, ANCHOR = "distill.content", "distill.anchor"
_FOLDER = "version"  # of a run's artefacts


@dataclass(frozen=True, kw_only=True)
class Files:
    """A version's files, to be stored.

    Attributes:
        folder: where they are.
        content: their hash.
        tags: what the server's own page shows of the version.
    """

    folder: Path
    content: str
    tags: Mapping[str, str]


class Store:
    """One model's versions on one server.

    Args:
        uri: of the tracking and registry server.
        model: its name there.
        artefacts: where a bare database, which has no server to take files, has them put.
    """

    def __init__(self, uri: str, model: str, artefacts: Path) -> None:
        self.uri, self.model, self._artefacts = _absolute(uri), model, artefacts.resolve()

    @cached_property
    def _client(self) -> Any:
        return connect(self.uri)

    def versions(self) -> dict[int, str]:
        """Version number to content hash, of those that are ours."""
        with talking_to(self.uri):
            return {number: tags[CONTENT] for number, tags in self._all() if CONTENT in tags}

    def upload(
        self,
        files: Files,
        numbers: Mapping[int, str],
        kept: Callable[[int], Files | None] = lambda number: None,
    ) -> int:
        """Store a version's files, then the version itself; what a kill left is gone on with.

        A new server, and one whose model was deleted, numbers versions from 1 again. A number that
        means another content already goes to that one, or is passed over where its files are gone,
        so that none ever means two things.

        Args:
            files: of the version.
            numbers: version number to content hash, of all that were ever registered.
            kept: finds the files of a version that was registered before; None where they are gone.

        Returns:
            The version number.
        """
        for number, own in self.versions().items():
            if own == files.content == numbers.get(number, own):
                return number  # a kill came between it and the ledger
        with talking_to(self.uri):
            passed_over: list[int] = []
            self._model_exists()
            while True:
                following = max([0, *passed_over, *(number for number, _ in self._all())]) + 1
                is_free = numbers.get(following, files.content) == files.content
                given = None if is_free else kept(following)
                number = self._create(given or files)
                if given is None and numbers.get(number, files.content) == files.content:
                    break
                if given is None or number != following:
                    passed_over.append(number)
            for taken in passed_over:  # last: a server may give the last number again
                self._client.delete_model_version(self.model, str(taken))
            return number

    def _create(self, files: Files) -> int:
        client, run = self._client, self._run(files.content)
        client.log_artifacts(run.info.run_id, str(files.folder), _FOLDER)
        client.set_terminated(run.info.run_id)
        version = client.create_model_version(
            self.model,
            f"{run.info.artifact_uri}/{_FOLDER}",
            run_id=run.info.run_id,
            tags={**files.tags, CONTENT: files.content},
            await_creation_for=0,
        )
        return int(version.version)

    def _all(self) -> list[tuple[int, Mapping[str, str]]]:
        """Number and tags of all versions, also of those that are not ours."""
        found, page = [], None
        while True:
            listed = self._client.search_model_versions(f"name='{self.model}'", page_token=page)
            found += [(int(version.version), version.tags) for version in listed]
            page = listed.token
            if not page:
                return found

    def download(self, version: int, folder: Path) -> None:
        """Fetch a version's files into an empty folder.

        Raises:
            UserError: the server has no such version.
        """
        with talking_to(self.uri):
            client = self._client
            try:
                found = client.get_model_version(self.model, str(version))
                if CONTENT not in found.tags:
                    raise self._not_there(version, "that number is another's")
                client.download_artifacts(found.run_id, _FOLDER, str(folder))
            except Exception as error:
                if not missing(error):
                    raise
                raise self._not_there(version, "it was deleted there, or never was") from error
        for path in (folder / _FOLDER).iterdir():
            path.rename(folder / path.name)
        (folder / _FOLDER).rmdir()

    def _not_there(self, version: int, found: str) -> UserError:
        return UserError(
            f"Expected version {version} of `{self.model}` at {without_passwords(self.uri)} but "
            f"{found}. Register its run again, or take another version."
        )

    def aliases(self) -> dict[str, int]:
        """Alias to version number, as the server has them now."""
        with talking_to(self.uri):
            found = self._registered_model()
            return {a: int(v) for a, v in found.aliases.items()} if found else {}

    def set_alias(self, alias: str, version: int | None) -> None:
        """Point an alias to a version, or take it away."""
        with talking_to(self.uri):
            if version is None:
                self._client.delete_registered_model_alias(self.model, alias)
            else:
                self._client.set_registered_model_alias(self.model, alias, str(version))

    def anchor(self) -> str | None:
        """The ledger's head as the server has seen it last."""
        with talking_to(self.uri):
            found = self._registered_model()
            return found.tags.get(ANCHOR) if found else None

    def set_anchor(self, head: str) -> None:
        """Keep the ledger's head."""
        with talking_to(self.uri):
            self._model_exists()  # a new server has none
            self._client.set_registered_model_tag(self.model, ANCHOR, head)

    def _registered_model(self) -> Any:
        try:
            return self._client.get_registered_model(self.model)
        except Exception as error:
            if missing(error):
                return None
            raise

    def _model_exists(self) -> None:
        if self._registered_model() is None:
            self._client.create_registered_model(self.model)

    def _run(self, content: str) -> Any:
        """Find the run that a killed upload left, or start one."""
        client, name = self._client, f"registry of {self.model}"
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # MLflow's default for a database is `./mlruns`, wherever one happens to stand.
            own = None if self.uri.startswith("http") else str(self._artefacts)
            experiment_id = client.create_experiment(name, artifact_location=own)
        else:
            experiment_id = experiment.experiment_id
        wanted = f"tags.`{CONTENT}` = '{content}'"
        left = client.search_runs([experiment_id], wanted, max_results=1)
        return left[0] if left else client.create_run(experiment_id, tags={CONTENT: content})


def _absolute(uri: str) -> str:
    """Name a database file by its whole path: MLflow keeps connections by their names."""
    scheme, separator, path = uri.partition(":///")
    if scheme != "sqlite" or not path or path.startswith(":"):
        return uri
    return f"{scheme}{separator}{Path(path).resolve()}"
