"""What every page does, in a real browser: the door, the theme, the keyboard, a phone, both themes' contrast."""

import re

import pytest
from django.core import mail
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from people.models import User
from tests.factories import PASSWORD, FinishedSessionFactory, SessionFactory, StaffFactory, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Relative luminance and contrast as WCAG 2.2 defines them, of every visible text on its own ground.
CONTRASTS = """() => {
  const parse = (text) => {
    const parts = text.match(/[\\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
    const scale = text.startsWith("color(") ? 255 : 1;
    return [parts[0] * scale, parts[1] * scale, parts[2] * scale, parts[3] ?? 1];
  };
  const over = (top, bottom) => [0, 1, 2].map((i) => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const quiet = ":disabled, .disabled, .visually-hidden, .skip-link";
    if (!own || !element.checkVisibility({ visibilityProperty: true }) || element.closest(quiet)) continue;
    const below = ground(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), below)), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const text = element.textContent.trim().slice(0, 40);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className}: ${text}`);
  }
  return poor;
}"""


@pytest.fixture
def ada(transactional_db):
    return UserFactory(username="ada", first_name="Ada", last_name="Lovelace", password=PASSWORD)


@pytest.fixture
def door(logged_in, live_server, ada):
    """A page of nobody's, at the login."""
    page = logged_in()
    page.goto(live_server.url + reverse("people:login"))
    return page


def expect_theme(page, theme):
    expect(page.locator("html")).to_have_attribute("data-bs-theme", theme)


def scrolls_sideways(page):
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def test_logging_in_and_out_by_keyboard(door, live_server, shot):
    expect(door.locator("#id_username")).to_be_focused()
    door.keyboard.type("ada")
    door.keyboard.press("Tab")
    door.keyboard.type("wrong")
    door.keyboard.press("Enter")
    expect(door.get_by_text("No account fits this name and password")).to_be_visible()
    shot(door, "login-wrong")
    door.locator("#id_password").focus()
    door.keyboard.type(PASSWORD)
    door.keyboard.press("Enter")
    expect(door).to_have_url(live_server.url + reverse("sessions:dashboard"))
    door.wait_for_load_state()  # A key pressed before the page's scripts have run opens no menu.

    menu = door.get_by_role("button", name="Ada Lovelace")
    menu.focus()
    door.keyboard.press("Enter")
    leave = door.get_by_role("button", name="Log out")
    expect(leave).to_be_visible()
    shot(door, "menu", widths=["desktop"])
    for _ in range(12):
        if leave.evaluate("button => button === document.activeElement"):
            break
        door.keyboard.press("Tab")
    expect(leave).to_be_focused()
    door.keyboard.press("Enter")
    expect(door).to_have_url(live_server.url + reverse("people:login"))


def test_the_theme_follows_the_system_until_one_is_chosen(door, live_server):
    expect_theme(door, "light")
    door.emulate_media(color_scheme="dark")
    expect_theme(door, "dark")
    expect(door.get_by_role("button", name="Auto")).to_have_attribute("aria-pressed", "true")

    door.get_by_role("button", name="Light").click()
    expect_theme(door, "light")
    door.goto(live_server.url + reverse("people:password_reset"))
    expect_theme(door, "light")
    expect(door.get_by_role("button", name="Light")).to_have_attribute("aria-pressed", "true")

    door.get_by_role("button", name="Auto").click()
    expect_theme(door, "dark")
    door.reload()
    expect_theme(door, "dark")


def test_the_theme_is_there_before_anything_is_painted(logged_in, live_server, ada):
    page = logged_in(color_scheme="dark")
    # Seen by a script that runs as soon as the body begins.
    page.add_init_script(
        """new MutationObserver((_, observer) => {
            if (!document.body) return;
            window.themeAtFirst = document.documentElement.dataset.bsTheme;
            observer.disconnect();
        }).observe(document, { childList: true, subtree: true });"""
    )
    page.goto(live_server.url + reverse("people:login"))
    assert page.evaluate("window.themeAtFirst") == "dark"


def test_the_skip_link_comes_first_and_leads_to_the_content(logged_in, live_server, ada):
    page = logged_in(ada)
    page.goto(live_server.url + reverse("people:password_reset_done"))
    link = page.get_by_role("link", name="Skip to content")
    assert link.bounding_box()["width"] <= 2
    page.keyboard.press("Tab")
    expect(link).to_be_focused()
    assert link.bounding_box()["width"] > 50
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_every_stop_of_the_keyboard_is_seen(logged_in, live_server, ada):
    page = logged_in(ada)
    page.goto(live_server.url + reverse("people:password_change"))
    page.locator("main").focus()
    seen = 0
    for _ in range(12):
        page.keyboard.press("Tab")
        shown = page.evaluate(
            """() => {
                const e = document.activeElement;
                if (!e || e === document.body) return null;
                const style = getComputedStyle(e);
                const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
                return ring || style.boxShadow !== "none";
            }"""
        )
        if shown is not None:
            assert shown, page.evaluate("document.activeElement.outerHTML")
            seen += 1
    assert seen >= 5


def test_a_page_that_is_not_there(logged_in, live_server, ada, shot):
    page = logged_in(ada)
    assert page.goto(live_server.url + "/no/such/page/").status == 404
    expect(page.get_by_role("heading", level=1)).to_have_text("There is nothing here")
    shot(page, "404")
    page.get_by_role("link", name="To the dashboard").click()
    expect(page).to_have_url(live_server.url + reverse("sessions:dashboard"))


def test_a_page_that_is_not_allowed(logged_in, live_server, ada, shot):
    page = logged_in(ada)
    assert page.goto(live_server.url + reverse("people:invite")).status == 403
    expect(page.get_by_role("heading", level=1)).to_have_text("This is not yours to do")
    shot(page, "403")


def test_on_a_phone_the_menu_opens_and_nothing_scrolls_sideways(logged_in, live_server, shot):
    page = logged_in(
        StaffFactory(first_name="Grace", last_name="Hopper-" * 8), viewport={"width": 390, "height": 844}
    )
    for name in (
        "people:invite",
        "people:password_change",
        "sessions:dashboard",
        "sessions:list",
        "bookings:list",
    ):
        page.goto(live_server.url + reverse(name))
        assert not scrolls_sideways(page), name
    link = page.get_by_role("navigation", name="Main").get_by_role("link", name="Sessions")
    expect(link).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    expect(link).to_be_visible()
    page.get_by_role("button", name=re.compile("Grace")).click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    page.wait_for_timeout(400)  # The menu unfolds.
    shot(page, "menu-phone", widths=["phone"])
    assert not scrolls_sideways(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(logged_in, live_server, scheme):
    staff = StaffFactory()
    session = SessionFactory(delete_on=timezone.localdate())
    FinishedSessionFactory()
    page = logged_in(staff, color_scheme=scheme)
    for name in (
        "people:invite",
        "people:password_change",
        "sessions:dashboard",
        "sessions:list",
        "bookings:list",
    ):
        page.goto(live_server.url + reverse(name))
        assert page.evaluate(CONTRASTS) == [], name
    for name in ("sessions:detail", "sessions:data"):
        page.goto(live_server.url + reverse(name, args=[session.name]))
        assert page.evaluate(CONTRASTS) == [], name
    page.goto(live_server.url + "/no/such/page/")
    assert page.evaluate(CONTRASTS) == []


def test_an_invitation_from_the_form_to_the_first_password(logged_in, live_server, shot):
    page = logged_in(StaffFactory())
    page.goto(live_server.url + reverse("people:invite"))
    expect(page.get_by_label("First name")).to_be_focused()
    page.get_by_label("First name").fill("Grace")
    page.get_by_label("Last name").fill("Hall")
    page.get_by_label("E-mail address").fill("grace")
    page.get_by_role("button", name="Invite").click()
    expect(page.get_by_label("E-mail address")).to_be_focused()  # Where the error is.
    shot(page, "invite-error")
    page.get_by_label("E-mail address").fill("grace@example.org")
    page.get_by_role("button", name="Invite").click()
    expect(page.get_by_role("status")).to_contain_text("mailed to grace@example.org")
    shot(page, "invitation")
    link = page.get_by_label("Link to set the password").input_value()
    assert link in mail.outbox[0].body

    theirs = logged_in()
    theirs.goto(link)
    shot(theirs, "set-password")
    theirs.get_by_label("New password").fill("a new and rather long passphrase")
    theirs.get_by_label("The same again").fill("a new and rather long passphrase")
    theirs.get_by_role("button", name="Set password").click()
    expect(theirs.get_by_role("status").first).to_contain_text("Your password is set")
    assert User.objects.get(email="grace@example.org").has_usable_password()


def test_the_admin_works_under_the_content_security_policy(logged_in, live_server, ada, shot):
    page = logged_in(StaffFactory())
    page.goto(live_server.url + reverse("admin:people_user_changelist"))
    shot(page, "admin-users")
    page.get_by_role("link", name="Ada Lovelace").click()
    page.get_by_label("First name").fill("Augusta Ada")
    shot(page, "admin-user", full_page=False)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("changed successfully")
    page.get_by_role("link", name="Back to the site").click()
    expect(page).to_have_url(live_server.url + reverse("sessions:dashboard"))
