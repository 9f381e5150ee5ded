"""The live page of a sweep in a real browser: what it shows, how its parts follow each other, and its buttons."""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from browser import Visit, chromium, visit
from client_scenarios import GRID, Researcher, wait_until
from embedded_server import EmbeddedServer
from playwright.sync_api import Browser, Page, expect
from stored_sweeps import CONFIG, StoredRun, address_of, many_runs, store_sweep

pytestmark = pytest.mark.client

RUNS = [
    StoredRun(
        "good", [0.1, 0.412345, 0.4], summary={"end_reason": "completed"}, parameters={"max_lr": 0.001, "dropout": 0.1}
    ),
    StoredRun("gem", [0.2, 0.55, 0.1], "crashed", None, {"max_lr": 0.002, "dropout": 0.2}, host="other"),
    StoredRun(
        "poor", [0.05], "killed", 255, {"max_lr": 0.05, "dropout": 0.3}, stop_reason="user", name="<img src=x> & co"
    ),
    StoredRun(
        "full", [], "failed", 1, {"max_lr": 0.09, "dropout": 0.4}, log=["Traceback", "RuntimeError: CUDA out of memory"]
    ),
    StoredRun("nan", [0.02, float("nan")], "failed", 80, {"max_lr": 0.1, "dropout": 0.5}),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    return {
        "folder": str(folder),
        "few": store_sweep(folder / "data", RUNS),
        "many": store_sweep(folder / "data", many_runs(80)),
        "empty": store_sweep(folder / "data", []),
        "buttons": store_sweep(folder / "data", many_runs(2)),
        "bayes": store_sweep(
            folder / "data", [replace(run, id=f"told-{run.id}") for run in RUNS[:4]], CONFIG.replace("random", "bayes")
        ),
    }


@pytest.fixture(scope="module")
def server(sweeps: dict[str, str]) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(Path(sweeps["folder"]) / "data") as running:
        yield running


@pytest.fixture
def opened(browser: Browser, server: EmbeddedServer, sweeps: dict[str, str]) -> Iterator[dict[str, Visit]]:
    """Pages by name of the sweep, opened when asked for, with everything checked at the end."""
    context = browser.new_context(viewport={"width": 1400, "height": 2600})

    class Pages(dict[str, Visit]):
        def __missing__(self, name: str) -> Visit:
            address = f"{address_of(server.base_url, sweeps[name])}?key={server.key}"
            self[name] = page = visit(context, address, home=server.base_url)
            page.page.wait_for_selector("#sentence:not(:empty)")
            page.painted()
            return page

    pages = Pages()
    yield pages
    for page in pages.values():
        page.assert_clean()
    context.close()


def test_values_on_the_screen_are_those_of_the_runs(opened: dict[str, Visit]) -> None:
    page = opened["few"]
    assert page.column("run") == ["calm-sweep-2", "calm-sweep-1", "<img src=x> & co", "calm-sweep-5", "calm-sweep-4"]
    assert page.column("peak") == ["55.00%", "41.23%", "5.00%", "2.00%", "-"]
    assert page.column("at epoch") == ["2", "2", "1", "1", "-"]
    assert page.column("last") == ["10.00%", "40.00%", "5.00%", "NaN", "-"]
    assert page.column("progress") == ["3/12", "3/12", "1/12", "2/12", "0/12"]
    assert page.column("max_lr") == ["0.002", "0.001", "0.05", "0.1", "0.09"]
    causes = [cause.split(" likely")[0] for cause in page.column("cause")]
    assert causes == ["lost", "completed", "stopped", "diverged", "out of memory"]
    assert [bool(re.search("◆", rank)) for rank in page.column("#")] == [True, False, True, False, False]
    assert page.column("host") == ["other", "box", "box", "box", "box"]
    assert page.column("duration")[0] == "3 min"
    sentence = page.texts("#sentence")[0]
    assert sentence == (
        "Running without an agent: 5 runs have ended. calm-sweep-2 (lost, a hidden gem) leads with val/combined_acc "
        "55.00% at epoch 2 of 12."
    )
    assert "RuntimeError: CUDA out of memory" in page.texts("#failure-tables")[0]
    assert page.page.locator("canvas").count() >= 3


def test_the_table_says_what_the_search_was_told_of_each_run(opened: dict[str, Visit]) -> None:
    page = opened["bayes"]
    assert "crashed runs: auto" in page.page.locator("body").inner_text()
    assert dict(zip(page.column("run"), page.column("told the search"), strict=True)) == {
        "calm-sweep-1": "peak",
        "calm-sweep-2": "extrapolated",
        "<img src=x> & co": "extrapolated",
        "calm-sweep-4": "constraint",
    }
    assert "told the search" not in opened["few"].texts("#run-table thead th"), "random learns from no run"


def test_the_axes_hold_the_best_run(opened: dict[str, Visit]) -> None:
    best = opened["few"].page.evaluate(
        """async () => {
            const script = document.querySelector("script[type=module]").src;
            const { niceRange } = await import(script.replace("sweep_page", "axes"));
            const spread = [...Array(20).keys()].map((place) => place / 1000);
            return [niceRange([...spread, 0.0917], true), niceRange([...spread, 0.0917], false),
                    niceRange([...spread, -0.05], false), niceRange([...spread, -1e30], true),
                    niceRange([0.5, 0.5], true), niceRange([0.85, 1.1, 1.4, 2.1], false)];
        }"""
    )
    assert (best[0][0], best[0][1] >= 0.0917) == (0, True)
    assert best[1][1] < 0.0917, "a bad value far out is cut off"
    assert best[2][0] <= -0.05
    assert best[3][0] > -1
    assert best[4][0] < 0.5 < best[4][1]
    for low, high, step in best:
        ticks = (high - low) / step
        assert ticks == pytest.approx(round(ticks)), "all ticks have one distance"


def test_the_table_is_sorted_and_filtered(opened: dict[str, Visit]) -> None:
    page = opened["many"]
    assert page.texts("#shown-count") == ["80 runs"]
    page.page.get_by_role("button", name="max_lr").click()
    values = [float(text) for text in page.column("max_lr")]
    assert values == sorted(values)
    page.page.get_by_role("button", name="max_lr").click()
    values = [float(text) for text in page.column("max_lr")]
    assert values == sorted(values, reverse=True)
    page.page.fill("#search", "max_lr<0.001 resnet50")
    expect(page.page.locator("#shown-count")).to_have_text(re.compile(r"^\d+ of 80 runs$"))
    assert {float(text) < 0.001 for text in page.column("max_lr")} == {True}
    assert set(page.column("model_type")) == {"resnet50"}
    page.page.fill("#search", "no such run")
    expect(page.page.locator("#run-table tbody")).to_have_text("No run matches.")
    page.page.get_by_role("button", name="Show all runs").click()
    expect(page.page.locator("#shown-count")).to_have_text("80 runs")


def test_hidden_columns_stay_hidden(opened: dict[str, Visit]) -> None:
    page = opened["few"].page
    page.get_by_text("Columns").click()
    page.get_by_label("host").uncheck()
    assert "host" not in opened["few"].texts("#run-table thead th")
    page.reload()
    expect(page.locator("#run-table thead")).to_contain_text("duration")
    assert "host" not in opened["few"].texts("#run-table thead th")


def drag(page: Page, x: float, begin: float, end: float) -> None:
    page.mouse.move(x, begin)
    page.mouse.down()
    page.mouse.move(x, end, steps=5)
    page.mouse.up()


def test_a_brush_along_an_axis_selects_runs_everywhere(opened: dict[str, Visit]) -> None:
    page = opened["many"]
    box = page.page.locator("#parallel").bounding_box()
    assert box is not None
    places = page.page.evaluate(
        """async () => {
            const script = document.querySelector("script[type=module]").src;
            const { chartOf } = await import(script.replace("sweep_page", "chart"));
            const model = chartOf(document.getElementById("parallel")).echarts.getModel();
            const axes = model.getComponent("parallel", 0).coordinateSystem;
            return axes.dimensions.map((dimension) => axes.getAxisLayout(dimension).position[0]);
        }"""
    )
    middle = box["y"] + box["height"] / 2
    drag(page.page, box["x"] + places[0], middle, box["y"] + 60)
    expect(page.page.locator("#shown-count")).to_have_text(re.compile(r"^\d+ of 80 runs$"))
    values = [float(text) for text in page.column("max_lr")]
    assert 0 < len(values) < 80
    assert min(values) > 0.002, "the upper half of a logarithmic axis"
    top, height = box["y"] + 40, box["height"] - 64
    drag(page.page, box["x"] + places[2], top + 1, top + height / 3 - 1)
    wait_until(lambda: set(page.column("batch_size")) == {"512"}, "the upper one of three listed values", 10)
    assert set(map(float, page.column("max_lr"))) < set(values), "both brushes select"
    page.page.get_by_role("button", name="Show all runs").click()
    expect(page.page.locator("#shown-count")).to_have_text("80 runs")


CHART = """const script = document.querySelector("script[type=module]").src;
    const { chartOf } = await import(script.replace("sweep_page", "chart"));
    const chart = chartOf(document.getElementById(id)).echarts;"""


def followers(page: Visit, chart: str) -> int:
    """Return how many runs a chart shows as selected: their marks or lines are not faint."""
    count: int = page.page.evaluate(
        f"""async (id) => {{
            {CHART}
            const items = chart.getOption().series.flatMap((each) => each.data ?? []);
            return items.filter((item) => (item.itemStyle ?? item.lineStyle)?.opacity > 0.2).length;
        }}""",
        chart,
    )
    return count


def axes_of(page: Visit, chart: str) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a chart's axes on the screen."""
    box = page.page.locator(f"#{chart}").bounding_box()
    assert box is not None
    inside = page.page.evaluate(
        f"async (id) => {{ {CHART} return chart.getModel().getComponent('grid').coordinateSystem.getRect(); }}", chart
    )
    left, top = box["x"] + inside["x"], box["y"] + inside["y"]
    return left, top, left + inside["width"], top + inside["height"]


def test_a_rectangle_over_a_slice_selects_runs_everywhere(opened: dict[str, Visit]) -> None:
    page = opened["many"]
    page.page.locator("#slice-1").scroll_into_view_if_needed()  # dropout
    left, top, right, bottom = axes_of(page, "slice-1")
    values = sorted(run.parameters["dropout"] for run in many_runs(80) if run.values)
    low, high = max(pairwise(values[20:60]), key=lambda pair: pair[1] - pair[0])  # the widest gap in the middle
    x = left + ((low + high) / 2 - values[0]) / (values[-1] - values[0]) * (right - left)
    page.page.mouse.move(left + 0.5, top + 1)  # the smallest value lies on the left edge
    page.page.mouse.down()
    page.page.mouse.move(x, bottom - 1, steps=5)
    page.page.mouse.up()
    expected = sorted(run.id for run in many_runs(80) if run.values and run.parameters["dropout"] <= low)
    expect(page.page.locator("#shown-count")).to_have_text(f"{len(expected)} of 80 runs")
    rows = page.page.locator("#run-table tr[data-run]")
    assert sorted(row.get_attribute("data-run") or "" for row in rows.all()) == expected
    for chart in ("slice-0", "slice-1", "slice-3", "parallel", "chart-best"):
        page.page.locator(f"#{chart}").scroll_into_view_if_needed()
        wait_until(lambda chart=chart: followers(page, chart) == len(expected), f"{chart} follows", 10)
    page.page.mouse.click(right - 2, top + 2)
    expect(page.page.locator("#shown-count")).to_have_text("80 runs")


def test_keys_choose_a_row_of_the_table_and_open_it(opened: dict[str, Visit]) -> None:
    page = opened["few"].page
    page.locator(".scroll.runs").focus()
    for key, run in (("ArrowDown", "gem"), ("ArrowDown", "good"), ("End", "full"), ("ArrowUp", "nan"), ("Home", "gem")):
        page.keyboard.press(key)
        assert page.locator("tr[aria-current=true]").get_attribute("data-run") == run, key
    expect(page.locator("#curve-note")).to_contain_text("calm-sweep-2 (gem): peak 55.00% at epoch 2, lost")
    page.keyboard.press("Escape")
    expect(page.locator("tr[aria-current=true]")).to_have_count(0)
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/local/p/runs/full$"))


def test_the_focus_stays_on_a_link_when_news_come(opened: dict[str, Visit], server: EmbeddedServer) -> None:
    page = opened["buttons"].page
    page.locator("tr[data-run=run2-0] a").focus()
    query = 'query R { project(name: "p", entityName: "local") { run(name: "run2-0") { id } } }'
    document = """mutation U($id: ID!) { upsertBucket(input: {id: $id, displayName: "renamed"}) { bucket { id } } }"""
    server.graphql(document, id=server.graphql(query)["project"]["run"]["id"])
    expect(page.locator("tr[data-run=run2-0] a")).to_have_text("renamed", timeout=5000)
    expect(page.locator("tr[data-run=run2-0] a")).to_be_focused()


def test_a_click_in_the_table_picks_the_run_in_the_charts(opened: dict[str, Visit]) -> None:
    page = opened["few"].page
    page.locator("tr[data-run=good] td.cause-cell").click()
    expect(page.locator("#curve-note")).to_have_text("calm-sweep-1 (good): peak 41.23% at epoch 2, completed")
    assert page.locator("tr.picked").get_attribute("data-run") == "good"


def test_a_group_of_causes_can_be_left_out(opened: dict[str, Visit]) -> None:
    page = opened["few"]
    page.page.get_by_label("failed").uncheck()
    expect(page.page.locator("#shown-count")).to_have_text("2 of 5 runs")
    assert "out of memory" not in page.column("cause")
    page.page.get_by_role("button", name="Show all runs").click()
    expect(page.page.locator("#shown-count")).to_have_text("5 runs")
    expect(page.page.get_by_label("failed")).to_be_checked()


def test_a_sweep_without_runs_says_so(opened: dict[str, Visit]) -> None:
    page = opened["empty"]
    assert page.texts("#sentence") == ["Running without an agent: no run has begun."]
    assert page.texts("#run-table tbody") == ["No runs yet."]


def test_a_new_row_appears_within_three_seconds(
    opened: dict[str, Visit], server: EmbeddedServer, sweeps: dict[str, str]
) -> None:
    page = opened["empty"]
    upsert = """mutation U($name: String, $sweep: String, $config: JSONString) { upsertBucket(input: {name: $name,
        modelName: "p", host: "box", sweep: $sweep, config: $config}) { bucket { id } } }"""
    server.graphql(upsert, name="fresh", sweep=sweeps["empty"], config=json.dumps({"max_lr": {"value": 0.004}}))
    begin = time.monotonic()
    expect(page.page.locator("tr[data-run=fresh]")).to_be_visible(timeout=3000)
    assert time.monotonic() - begin < 3
    assert page.column("max_lr") == ["0.004"]


def test_the_stop_button_stops_a_real_run(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with EmbeddedServer(tmp_path / "data", options=("--limit", "unlisted_s=4", "--limit", "stop_grace_s=2")) as own:
        person = Researcher(folder, own)
        sweep = person.create_sweep(GRID % "1")
        agent = person.start_agent(sweep, EPOCHS="2000", PAUSE_S="0.1")
        project = sweep.split("/")[1]
        address = f"{own.base_url}/local/{project}/sweeps/{sweep.rsplit('/', 1)[1]}?key={own.key}"
        page = visit(browser, address, home=own.base_url)
        page.page.locator("#run-table button.danger").click(timeout=30_000)
        page.page.get_by_role("button", name="Stop the run").click()
        state = page.page.locator("#run-table tbody tr:not(.spacer) .cause")
        expect(state).to_have_text("stopped", timeout=60_000)
        wait_until(lambda: agent.poll() is not None, "the agent ends with its sweep", 60)
        assert [run["state"] for run in person.sweep(sweep)["runs"].values()] == ["killed"]
        page.assert_clean()
        page.page.close()
        person.end()


def test_a_button_asks_and_then_changes_the_sweep(opened: dict[str, Visit]) -> None:
    page = opened["buttons"].page
    page.click("#action-pause")
    page.get_by_role("button", name="No", exact=True).click()
    expect(page.locator("#state")).to_have_text("running")
    for action, yes, state in (("pause", "Pause", "paused"), ("cancel", "Cancel the sweep", "cancelled")):
        page.click(f"#action-{action}")
        page.get_by_role("button", name=yes, exact=True).click()
        expect(page.locator("#state")).to_have_text(state, timeout=3000)


def test_a_viewer_without_the_key_sees_nothing(
    browser: Browser, server: EmbeddedServer, sweeps: dict[str, str]
) -> None:
    context = browser.new_context()
    page = context.new_page()
    address = address_of(server.base_url, sweeps["few"])
    for path in ("/", "/local/p", "/local/p/runs/good", f"/local/p/sweeps/{sweeps['few']}"):
        reply = page.goto(server.base_url + path)
        assert reply is not None
        assert reply.status == 401, path
        assert not re.search(r"calm-sweep|resnet|val/combined_acc", page.content()), path
        expect(page.locator("input[name=key]")).to_be_visible()
    for path in (f"/local/p/sweeps/{sweeps['few']}/data", "/local/p/runs/good/data", "/files/local/p/good/x"):
        assert context.request.get(server.base_url + path).status == 401, path
    page.fill("input[name=key]", "amc-wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("This is not the key of this server.")
    page.fill("input[name=key]", server.key)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("tr[data-run=good]")).to_be_visible()
    assert page.url == address
    context.close()


@pytest.fixture
def other_site(tmp_path: Path) -> Iterator[str]:
    """A site on another port of the same host: to a browser's cookies it is the same site."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    (tmp_path / "index.html").write_text("<title>elsewhere</title>")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{elsewhere.server_port}"
        elsewhere.shutdown()


def test_a_page_of_another_site_can_press_no_button(
    browser: Browser, server: EmbeddedServer, sweeps: dict[str, str], other_site: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    address = address_of(server.base_url, sweeps["many"])
    page.goto(f"{address}?key={server.key}")
    page.wait_for_selector("#action-cancel")
    token = page.locator("body").get_attribute("data-token")
    for elsewhere in (other_site, server.base_url.replace("127.0.0.1", "localhost") + "/healthz"):
        other = context.new_page()
        other.goto(elsewhere)
        outcomes = other.evaluate(
            """async ([address, token]) => {
                const press = async (options) => {
                    try {
                        const reply = await fetch(address, { method: "POST", credentials: "include", ...options });
                        return reply.type === "opaque" ? "not readable" : reply.status;
                    } catch {
                        return "refused";
                    }
                };
                const body = JSON.stringify({ action: "cancel" });
                const headers = { "x-amc-token": token };
                return [await press({ body, mode: "no-cors" }), await press({ body, headers })];
            }""",
            [f"{address}/actions", token],
        )
        assert outcomes == ["not readable", "refused"], elsewhere
        form = f'method="post" action="{address}/actions" enctype="text/plain"'
        other.set_content(f"<form {form}><button>x</button></form>")
        with other.expect_response(f"{address}/actions") as pressed:
            other.get_by_role("button").click()
        assert pressed.value.status == 403, elsewhere
    page.reload()
    expect(page.locator("#state")).to_have_text("running")
    page.click("#action-pause")  # the page itself can
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#state")).to_have_text("paused", timeout=3000)
    context.close()
