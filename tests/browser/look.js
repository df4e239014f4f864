// Does a page show in a real browser without an error or a request, readable for all, at 360 and 1,400 pixels, by day and night?
//
//   NODE_PATH=... node look.js PAGE [PICTURE]
//
// Prints what the page says and what is wrong with it, as JSON; PICTURE gets the page as it looks, 1,000 pixels wide.
const puppeteer = require("puppeteer-core");
const fs = require("node:fs");
const { pathToFileURL } = require("node:url");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

async function look(browser, address, width, scheme) {
    const problems = [];
    const where = `${width} pixels, ${scheme}: `;
    const page = await browser.newPage();
    page.on("console", (message) => problems.push(`${where}console: ${message.text()}`));
    page.on("pageerror", (error) => problems.push(`${where}error: ${error.message}`));
    page.on("dialog", (dialog) => {
        problems.push(`${where}dialog: ${dialog.message()}`);
        dialog.dismiss();
    });
    page.on("request", (request) => {
        if (request.url() !== address && !request.url().startsWith("data:")) problems.push(`${where}request: ${request.url()}`);
    });
    await page.setViewport({ width, height: 900 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.goto(address, { waitUntil: "load" });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 0) problems.push(`${where}the page is ${wide} pixels wider than the window`);
    await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
    await page.evaluate(axe);
    const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    for (const violation of found.violations) {
        for (const node of violation.nodes) problems.push(`${where}${violation.id}: ${node.html.slice(0, 200)}`);
    }
    await page.close();
    return problems;
}

// On paper it is dark on white, whatever the screen is, and nothing is hidden behind a scroll bar.
async function printed(browser, address) {
    const page = await browser.newPage();
    await page.setViewport({ width: 700, height: 900 });
    await page.goto(address, { waitUntil: "load" });
    const session = await page.createCDPSession();
    await session.send("Emulation.setEmulatedMedia", { media: "print", features: [{ name: "prefers-color-scheme", value: "dark" }] });
    const found = await page.evaluate(() => ({
        paper: getComputedStyle(document.body).backgroundColor,
        scrolls: [...document.querySelectorAll(".wide")].some((wide) => getComputedStyle(wide).overflowX !== "visible"),
    }));
    await page.close();
    const problems = found.scrolls ? ["printed: a region scrolls"] : [];
    if (found.paper !== "rgb(255, 255, 255)") problems.push(`printed: on ${found.paper}`);
    return problems;
}

async function said(browser, address, picture) {
    const page = await browser.newPage();
    await page.setViewport({ width: 1000, height: 1100 });
    await page.goto(address, { waitUntil: "load" });
    if (picture) await page.screenshot({ path: picture });
    const focused = [];
    for (let presses = 0; presses < 12; presses++) {
        await page.keyboard.press("Tab");
        focused.push(await page.evaluate(() => document.activeElement.tagName.toLowerCase()));
    }
    await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
    const text = await page.evaluate(() => document.body.innerText);
    const scripts = await page.evaluate(() => document.scripts.length);
    const values = await page.evaluate(() => Object.fromEntries([...document.querySelectorAll("data")].map((data) => [data.id, data.value])));
    const tables = await page.evaluate(() => Object.fromEntries([...document.querySelectorAll("table[id]")].map((table) =>
        [table.id, [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.innerText).join("|"))])));
    return { text, scripts, values, tables, focused };
}

async function main([file, picture]) {
    const browser = await puppeteer.launch({
        executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
        // Chromium has no sandbox for root, and a container no large /dev/shm.
        args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
    });
    try {
        const address = pathToFileURL(file).href;
        const problems = [];
        for (const width of [360, 1400]) {
            for (const scheme of ["light", "dark"]) problems.push(...(await look(browser, address, width, scheme)));
        }
        problems.push(...(await printed(browser, address)));
        console.log(JSON.stringify({ problems, ...(await said(browser, address, picture)) }));
    } finally {
        await browser.close();
    }
}

main(process.argv.slice(2)).catch((error) => {
    console.error(error);
    process.exit(1);
});
