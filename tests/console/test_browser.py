"""The pages in a real browser: what an operator and a user do in a day, watched for errors and requests.

Headless Chromium of the system (package `chromium`), driven by Playwright. Every page is looked at by
axe-core, light at desktop width and dark at phone width; pictures of all are left in FAREBOX_SCREENSHOTS, if
that names a folder.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.async_api import Browser, Page, Request, async_playwright, expect

from console.shopfront import MODEL, PAYLOAD, Shopfront, open_shopfront
from farebox.base.units import usd_from_pico
from farebox.console.pages.words import usd
from needs import needs_program

STORES = ("sqlite",)
"""What a browser shows does not depend on the store; `test_pages` runs on both."""
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
LOOKS = (("desktop", DESKTOP, "light"), ("phone", PHONE, "dark"))
AXE_OPTIONS = '{resultTypes: ["violations"]}'
AT_REST = """() => {
  const main = document.querySelector("main");
  if (main.hasAttribute("aria-busy")) return false;
  main.dataset.again = "";
  return true;
}"""
"""True once nothing is being fetched; from then on the page does not look again by itself."""
SERIOUS = ("serious", "critical")
WAIT_MS = 60_000
expect.set_options(timeout=WAIT_MS)


class Watched:
    """One tab, and everything it complained about or asked of others."""

    def __init__(self, page: Page, front: Shopfront, pictures: Path) -> None:
        self.page = page
        self.front = front
        self.pictures = pictures
        self.complaints: list[str] = []
        self.refusals: tuple[int, ...] = ()
        """Statuses that are asked for just now; a browser says of each that it failed to load something."""
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", self._asked)
        page.on("dialog", lambda dialog: dialog.accept())

    def _heard(self, kind: str, text: str) -> None:
        refused = any(f"status of {status}" in text for status in self.refusals)
        if kind in {"error", "warning"} and not refused:
            self.complaints.append(f"{kind}: {text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(self.front.url):
            self.complaints.append(f"foreign request: {request.url}")

    async def log_in(self, who: str) -> None:
        await self.page.goto(self.front.url)
        await self.page.get_by_label("API key or admin token").fill(self.front.tokens[who])
        await self.page.get_by_role("button", name="Log in").first.click()
        await expect(self.page.get_by_role("button", name="Log out")).to_be_visible(timeout=WAIT_MS)

    async def log_out(self) -> None:
        await self.page.get_by_role("button", name="Log out").click()
        await expect(self.page.get_by_label("API key or admin token")).to_be_visible(timeout=WAIT_MS)

    async def go(self, name: str) -> None:
        await self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        await expect(self.page.get_by_role("link", name=name).first).to_have_attribute("aria-current", "page")

    async def said(self, text: str) -> str:
        """Wait until the page says that something was done."""
        status = self.page.get_by_role("status")
        await expect(status).to_contain_text(text)
        return await status.inner_text()

    async def card(self, name: str) -> str:
        card = self.page.locator(".cards div", has=self.page.locator("dt", has_text=f"{name}")).filter(
            has=self.page.get_by_text(name, exact=True)
        )
        return (await card.first.locator("dd").get_attribute("title")) or ""

    async def inspect(self, name: str) -> None:
        """Look at the page as it stands: axe, nothing wider than the window, a picture of each look."""
        await self.page.wait_for_function(AT_REST)
        for look, size, scheme in LOOKS:
            await self.page.set_viewport_size(size)
            await self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            await self.page.screenshot(path=self.pictures / f"{name}-{look}.png", full_page=True)
            assert await self.page.evaluate(
                "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            ), f"{name} is wider than the {look}"
            found = await self.page.evaluate(f"axe.run({AXE_OPTIONS}).then((found) => found.violations)")
            bad = [
                f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
                for one in found
                if one["impact"] in SERIOUS
            ]
            assert bad == [], f"{name}, {look}"
        await self.page.set_viewport_size(DESKTOP)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as driver:
        launched = await driver.chromium.launch(
            executable_path=needs_program("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield launched
        await launched.close()


@asynccontextmanager
async def tab(launched: Browser, front: Shopfront, pictures: Path) -> AsyncIterator[Watched]:
    context = await launched.new_context(viewport=DESKTOP, locale="en-GB")
    await context.add_init_script(AXE)
    watched = Watched(await context.new_page(), front, pictures)
    yield watched
    await context.close()
    assert watched.complaints == []


async def operators_day(at: Watched) -> None:
    """Switch periods, find a user, explain a charge, accept a late payment, transfer credit, log out."""
    page, front = at.page, at.front
    await at.log_in("admin")
    await page.evaluate("window.farebox_was_here = true")
    everything = f"{usd_from_pico(front.charged['openhands'])} USD"
    assert await at.card("New Burned") != everything
    await page.get_by_role("link", name="all", exact=True).click()
    await expect(page.get_by_role("link", name="all", exact=True)).to_have_attribute("aria-current", "true")
    assert await at.card("New Burned") == everything
    assert await at.card("Burned") == f"{usd_from_pico(front.charged['ohmygpt'])} USD"
    assert page.url.endswith("?period=all")
    await page.go_back()
    await expect(page.get_by_role("link", name="24h", exact=True)).to_have_attribute("aria-current", "true")
    await page.get_by_role("link", name="all", exact=True).click()
    await expect(page.get_by_role("link", name="all", exact=True)).to_have_attribute("aria-current", "true")
    assert await page.evaluate("window.farebox_was_here"), "the page was not loaded anew"
    await at.inspect("overview")
    await page.get_by_text("From, to").click()
    await page.get_by_label("From").fill("2020-01-01")
    await page.get_by_label("To, that day included").fill("2020-01-02")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_label("To, that day included")).to_have_value("2020-01-02")
    await expect(page.get_by_text("Nothing in this period.").first).to_be_visible()
    assert await at.card("New Burned") == "0 USD"
    await at.go("Live")
    await expect(page.get_by_text("1 exchange under way")).to_be_visible()
    await at.inspect("live")
    await at.go("Users")
    await page.get_by_label("Name begins with").fill("ali")
    await page.get_by_role("button", name="Find").click()
    await expect(page.get_by_role("heading", name="1 shown")).to_be_visible()
    await page.get_by_role("link", name="alice").click()
    await expect(page.get_by_role("heading", name="alice")).to_be_visible()
    await at.inspect("user")
    await transfer(at)
    await (
        page.get_by_role("region", name="Requests")
        .get_by_role("link", name="Explain the charge")
        .first.click()
    )
    await expect(page.get_by_text("the same to the last digit")).to_be_visible()
    mine = next(one for one in front.exchanges if one.user == "alice")
    await expect(page.get_by_text(usd_from_pico(mine.amount_pico), exact=True).first).to_be_visible()
    await at.inspect("exchange")
    await accept_late_payment(at)
    await at.go("Prices")
    await page.get_by_label("Compared with").select_option("1")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("heading", name="since version 1")).to_be_visible()
    await expect(
        page.get_by_role("region", name="Changed lines").get_by_role("cell", name="1.25", exact=True)
    ).to_be_visible()
    await at.inspect("prices")
    await at.go("Changes")
    await expect(page.get_by_role("region", name="Audit log")).to_contain_text("eve-admin")
    await at.inspect("changes")
    await tokens(at)
    await at.log_out()


async def tokens(at: Watched) -> None:
    """Make a token for a colleague, see it once, and revoke it; a taken name is refused."""
    page = at.page
    await at.go("Tokens")
    await page.get_by_label("Name").fill("colleague")
    await page.get_by_label("Role").select_option("support")
    await page.get_by_label("Ends in days").fill("30")
    await page.get_by_role("button", name="Create").click()
    made = (await at.said("shown this once: fbx-admin-")).rpartition(" ")[2]
    assert made not in at.front.tokens.values()
    row = page.get_by_role("row").filter(has_text="colleague")
    await expect(row).to_contain_text("support")
    await expect(row).to_contain_text("active")
    await at.inspect("tokens")
    await page.get_by_label("Name").fill("eve-support")
    at.refusals = (400,)
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("alert")).to_contain_text("eve-support has a token already")
    at.refusals = ()
    await row.get_by_role("button", name="Revoke the token of colleague").click()
    await at.said("Revoked.")
    await expect(row).to_contain_text("revoked")
    await expect(row.get_by_role("button")).to_have_count(0)


async def transfer(at: Watched) -> None:
    """Move three dollars from alice to bob; a move of too much is refused where it was asked for."""
    page = at.page
    await page.get_by_text("Transfer credit").click()
    form = page.locator("#transfer")
    await form.get_by_label("From pool").select_option("refCredits")
    await form.get_by_label("To user").fill("bob")
    await form.get_by_label("To pool").select_option("creditsNew")
    await form.get_by_label("Reason").fill("moved in the browser")
    await form.get_by_label("USD").fill("3000")
    at.refusals = (400,)
    await form.get_by_role("button", name="Transfer").click()
    await expect(form.get_by_role("alert")).to_contain_text("less unleased money")
    at.refusals = ()
    await form.get_by_label("USD").fill("3")
    await form.get_by_role("button", name="Transfer").click()
    await at.said("The credit is moved.")
    bob = await at.front.store.account("bob")
    assert bob is not None
    assert any(lot.pool == "creditsNew" and lot.left_pico == 3 * 10**12 for lot in bob.lots)


async def accept_late_payment(at: Watched) -> None:
    page = at.page
    await at.go("Payments")
    await at.inspect("payments")
    payment = page.get_by_role("region", name="Payment sepay:77")
    await payment.get_by_label("Why").first.fill("the bank was slow")
    await payment.get_by_label("User").fill("bob")
    await payment.get_by_role("button", name="Accept").click()
    await at.said("Accepted")
    record = await at.front.store.record("payment", "sepay:77")
    assert record is not None
    assert (record.status, record.document["credits"]) == ("credited", "20")


async def users_day(at: Watched) -> None:
    """Log in by key, read the balance, explain a charge, make, limit, rotate and revoke keys, move credit."""
    page, front = at.page, at.front
    await at.log_in("alice")
    await expect(page.get_by_role("heading", name="Your balance")).to_be_visible()
    await expect(page.get_by_text("requests left").first).to_be_visible()
    await expect(page.get_by_text("of credits end on")).to_be_visible()
    await page.get_by_role("link", name="7d", exact=True).click()
    await expect(page.get_by_role("link", name="7d", exact=True)).to_have_attribute("aria-current", "true")
    spent = sum(one.amount_pico for one in front.exchanges if one.user == "alice")
    await expect(page.locator(".cards").get_by_text(usd(spent), exact=False)).to_be_visible()
    await at.inspect("me")
    await page.get_by_role("link", name="Explain the charge").first.click()
    await expect(page.get_by_text("the same to the last digit")).to_be_visible()
    await at.go("Payments")
    await page.get_by_label("USD from credits to creditsNew").fill("2")
    await page.get_by_role("button", name="Move").click()
    await at.said("The credit is moved.")
    await page.get_by_label("Credits", exact=True).fill("20")
    await page.get_by_role("button", name="Order").click()
    await at.said("Pay with this text, see below for how: TROLL")
    await at.inspect("my-payments")
    await keys(at)
    await at.log_out()


async def keys(at: Watched) -> None:
    page, front = at.page, at.front
    await at.go("Keys")
    await page.get_by_label("Label").fill("second")
    await page.get_by_label("Models, with commas between").last.fill(MODEL)
    await page.get_by_role("button", name="Create").click()
    made = (await at.said("shown this once: sk-")).rpartition(" ")[2]
    assert front.tokens["alice"] != made
    row = page.get_by_role("row").filter(has_text="second")
    await expect(row).to_contain_text(MODEL)
    await row.get_by_text("Limits").click()
    await row.get_by_label("Requests a minute").fill("7")
    await row.get_by_role("button", name="Change").click()
    await at.said("The limits are changed.")
    await expect(page.get_by_role("row").filter(has_text="second")).to_contain_text("7 a minute")
    await at.inspect("keys")
    await page.get_by_role("row").filter(has_text="second").get_by_role("button", name="Rotate").click()
    rotated = (await at.said("shown this once: sk-")).rpartition(" ")[2]
    assert rotated != made
    live = (
        page.get_by_role("row")
        .filter(has_text="second")
        .filter(has=page.get_by_role("button", name="Revoke"))
    )
    await live.get_by_role("button", name="Revoke").click()
    await at.said("Revoked.")
    await expect(live).to_have_count(0)


async def by_keyboard(at: Watched) -> None:
    """The first stop is the way past the navigation; a form is sent by Enter; a refusal is said aloud."""
    page = at.page
    await page.goto(at.front.url)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.get_by_label("API key or admin token").focus()
    await page.keyboard.type("nonsense")
    at.refusals = (401,)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert").first).to_contain_text("not valid")
    await at.inspect("login")


@pytest.mark.timeout(600)
async def test_points_2_and_6_a_day_of_operator_and_user_in_chromium(store, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("FAREBOX_SCREENSHOTS", tmp_path / "pictures"))
    async with open_shopfront(store, tmp_path) as front, browser() as launched:
        async with tab(launched, front, pictures) as at:
            await operators_day(at)
            assert PAYLOAD not in await at.page.content()
        async with tab(launched, front, pictures) as at:
            await users_day(at)
        async with tab(launched, front, pictures) as at:
            await by_keyboard(at)
