"""Hooks of MkDocs: what the site has beside the pages of docs/.

Pages that lie elsewhere in the checkout are taken in, each public package has a page of reference, and links that leave
docs/ lead to the repository.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/rxflow/rxflow"

# Pages of the site that are files elsewhere in the checkout.
TAKEN_IN = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing/index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=[)\s])")
LOADING = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "object": "data"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, and put each into the navigation."""
    nav = cast(list[Any], config.nav)  # pyright: ignore[reportUnknownMemberType]
    for path, name in TAKEN_IN.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text(encoding="utf-8")))
    for package, text in write_reference().items():
        files.append(File.generated(config, f"reference/{package}.md", content=text))
        find_section(nav, "Reference").append(f"reference/{package}.md")
    named = set(find_pages(nav))
    find_section(nav, "Guides").extend(
        sorted(file.src_uri for file in files.documentation_pages() if file.src_uri not in named)
    )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links that are right in the checkout right on the site."""
    written_in = {name: path for path, name in TAKEN_IN.items()}
    return LINK.sub(
        lambda link: move_link(
            link[0], written_in.get(page.file.src_uri, f"docs/{page.file.src_uri}"), page.file.src_uri
        ),
        markdown,
    )


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    """Refuse a page that loads something from the network.

    Raises:
        PluginError: it names the page and the address.
    """
    remote = find_remote(output)
    if remote:
        raise PluginError(f"{page.file.src_uri} loads from the network: {', '.join(remote)}")


def find_remote(output: str) -> list[str]:
    """The addresses of other hosts that a browser would load with a page."""
    reader = _LoadingReader()
    reader.feed(output)
    return [address for address in reader.loaded if urlsplit(address).netloc]


def move_link(link: str, written_in: str, page: str) -> str:
    """The address on ``page`` for a link that the file ``written_in`` of the checkout has."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not parts.path:
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(written_in), parts.path))
    anchor = f"#{parts.fragment}" if parts.fragment else ""
    if target in TAKEN_IN:
        on_site = TAKEN_IN[target]
    elif target.startswith("docs/") and not target.endswith(".py"):
        on_site = target.removeprefix("docs/")
    elif (ROOT / target).exists():
        return f"{REPOSITORY}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}{anchor}"
    else:
        return link  # MkDocs reports it
    return posixpath.relpath(on_site, posixpath.dirname(page) or ".") + anchor


def write_reference() -> dict[str, str]:
    """The text of the page of each public package and module."""
    public = find_public()
    homes = {package: {name: find_home(name, package, public) for name in names} for package, names in public.items()}
    pages: dict[str, str] = {}
    for package, at in homes.items():
        own = [name for name, home in at.items() if home == package]
        lines = [f"# {package}", "", f"::: {package}", "    options:", f"      members: {own}", ""]
        elsewhere = [f"- [`{name}`][{home}.{name}]" for name, home in at.items() if home != package]
        if elsewhere:
            lines += ["## Also in this package", "", *elsewhere, ""]
        pages[package] = "\n".join(lines)
    return pages


def find_public() -> dict[str, dict[str, str]]:
    """What ``__all__`` of each public package and module names, with the path where each is defined."""
    loaded = griffe.load("rxflow", search_paths=[ROOT], allow_inspection=False)
    assert isinstance(loaded, griffe.Module)
    modules = [loaded, *(each for name, each in sorted(loaded.modules.items()) if not name.startswith("_"))]
    return {
        module.path: {str(name): find_definition(module, str(name)) for name in module.exports}
        for module in modules
        if module.exports
    }


def find_definition(module: griffe.Module, name: str) -> str:
    member = module.members.get(name)
    return member.target_path if isinstance(member, griffe.Alias) else f"{module.path}.{name}"


def find_home(name: str, package: str, public: dict[str, dict[str, str]]) -> str:
    """The package on whose page ``name`` is shown: where it is defined, else the last that has it."""
    definition = public[package][name]
    having = [each for each, names in public.items() if names.get(name) == definition]
    defining = [each for each in having if each != "rxflow" and definition.startswith(f"{each}.")]
    return (defining or [each for each in having if each != "rxflow"] or having)[-1]


def find_section(nav: list[Any], title: str) -> list[Any]:
    """The entries of a section of the navigation."""
    sections: list[dict[str, list[Any]]] = [entry for entry in nav if title in entry]
    return sections[0][title]


def find_pages(entry: Any) -> Iterator[str]:
    """The pages that an entry of the navigation names."""
    if isinstance(entry, str):
        yield entry
        return
    below: Iterable[Any] = cast(dict[str, Any], entry).values() if isinstance(entry, dict) else entry
    for each in below:
        yield from find_pages(each)


class _LoadingReader(HTMLParser):
    """Collects the addresses that a browser would load with the page."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in {"canonical", "prev", "next", "alternate"}:
            return
        address = values.get(LOADING.get(tag, ""))
        if address:
            self.loaded.append(address)
