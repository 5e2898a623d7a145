"""How long the page does not answer, because something in it takes its time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from playwright.async_api import Page

LONGEST_TASK_MS = 200
# Other tests may keep the machine busy: the best of three counts, and a failure is three times
# the budget.
TOLERANCE = 3
RUNS = 3

WATCH_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) longTasks.push(duration);
}).observe({ type: "longtask" });
"""


async def longest_task(page: Page, work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds of the longest task that this work causes; `page` was begun with WATCH_TASKS."""
    best = float("inf")
    for _ in range(RUNS):
        await page.evaluate("longTasks.length = 0")
        await work()
        # A task is told of once it is over.
        await page.evaluate("new Promise(requestIdleCallback)")
        best = min(best, max(await page.evaluate("longTasks"), default=0))
        if best <= LONGEST_TASK_MS:
            break
    return best
