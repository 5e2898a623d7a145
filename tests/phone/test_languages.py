"""Every language says everything, and people get theirs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.phone.conftest import OpenContext
from tests.phone.harness import PHONE, SOON, ScriptedAgent, pair
from tests.support.parts import need

APP = Path(__file__).parents[2] / "static" / "phone" / "app"
LANGUAGES = sorted(path.stem for path in (APP / "strings").glob("*.js"))

Texts = dict[str, Any]

_EXPORTED = """
const texts = {};
for (const language of process.argv.slice(1)) {
  const module = await import(`file://${process.cwd()}/strings/${language}.js`);
  const forms = new Intl.PluralRules(language).resolvedOptions().pluralCategories;
  texts[language] = { texts: module[language], forms };
}
console.log(JSON.stringify(texts));
"""


@pytest.fixture(scope="module")
def languages() -> dict[str, Any]:
    command = [need("node"), "--input-type=module", "-e", _EXPORTED, *LANGUAGES]
    run = subprocess.run(command, cwd=APP, capture_output=True, text=True, check=True, timeout=30)
    exported: dict[str, Any] = json.loads(run.stdout)
    return exported


def forms(text: Any) -> dict[str, str]:
    return text if isinstance(text, dict) else {"other": text}


def parameters(text: Any) -> set[str]:
    return {name for form in forms(text).values() for name in re.findall(r"\{(\w+)\}", form)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_the_texts_of_english(languages: dict[str, Any], language: str) -> None:
    english: Texts = languages["en"]["texts"]
    texts: Texts = languages[language]["texts"]
    assert list(texts) == list(english)
    for key, text in texts.items():
        assert parameters(text) == parameters(english[key]), key
        assert all(form.strip() for form in forms(text).values()), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_plurals_have_the_forms_of_their_language(languages: dict[str, Any], language: str) -> None:
    for key, text in languages[language]["texts"].items():
        if isinstance(text, dict):
            assert sorted(text) == sorted(languages[language]["forms"]), key
            assert "count" in parameters(text), key


def test_korean_is_korean(languages: dict[str, Any]) -> None:
    """A text without any Korean in it is a name, an example or a parameter alone."""
    for key, text in languages["ko"]["texts"].items():
        words = re.sub(r"\{\w+\}|CoralMux|https://|[^\w]", "", forms(text)["other"])
        assert re.search("[가-힣]", words) or not words or key == "language.direction", key


def test_every_text_is_used(languages: dict[str, Any]) -> None:
    source = "\n".join(
        path.read_text("utf-8") for path in APP.rglob("*.js") if path.parent.name != "strings"
    )
    begun = tuple(re.findall(r"`([a-zA-Z]+\.[\w.]*)\$\{", source))
    unused = [
        key
        for key in languages["en"]["texts"]
        if f'"{key}"' not in source and not key.startswith(begun)
    ]
    assert unused == []


async def test_the_browser_s_language_is_spoken(
    open_profile: OpenContext, agent: ScriptedAgent
) -> None:
    async with open_profile(**{**PHONE, "locale": "ko-KR"}) as context:
        page = await context.new_page()
        await page.goto(agent.url)
        await expect(page.get_by_role("heading", name="이 에이전트에 연결할까요?")).to_be_visible()
        assert await page.evaluate("document.documentElement.lang") == "ko"
        await page.get_by_role("button", name="연결", exact=True).click()
        await expect(page.get_by_role("heading", name="Agent에 연결됐어요")).to_be_visible(
            timeout=SOON
        )


async def test_a_language_nobody_has_written_falls_back_to_english(
    open_profile: OpenContext,
) -> None:
    async with open_profile(**{**PHONE, "locale": "eo"}) as context:
        page = await context.new_page()
        await page.goto("/phone")
        await expect(page.get_by_role("heading", name="Talk to your own AI")).to_be_visible()
        assert await page.evaluate("document.documentElement.lang") == "en"


async def test_a_chosen_language_is_kept_until_the_browser_s_is_chosen_again(
    page: Page, agent: ScriptedAgent
) -> None:
    await pair(page, agent)
    await page.get_by_role("button", name="Back", exact=True).click()
    await page.get_by_role("button", name="Settings").click()
    await page.get_by_label("Language").select_option(label="한국어")
    await expect(page.get_by_role("heading", name="설정")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", name="설정")).to_be_visible()
    assert await page.evaluate("document.documentElement.lang") == "ko"
    await page.get_by_label("언어").select_option(label="브라우저 설정 (English)")
    await expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", name="Settings")).to_be_visible()
