import { place } from "./api";
import { overviewPage } from "./overview";
import { rolloutPage } from "./rollout";

const main = document.getElementById("main");
if (!main) throw new Error("the page has no place to show anything");
const here = place(window.location.pathname);
if (here.kind === "overview") overviewPage(main, here);
else rolloutPage(main, here);
