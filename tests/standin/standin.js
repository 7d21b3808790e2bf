// The few browser functions of the host that extensions rely on.
const uiLoadedCallbacks = [], uiUpdateCallbacks = [], afterUiUpdateCallbacks = [], uiTabChangeCallbacks = [], optionsChangedCallbacks = [];
let opts = {}, uiLoaded = false, uiTab = null, afterUpdateTimer = null;

function gradioApp() { return document; }
function onUiLoaded(f) { uiLoadedCallbacks.push(f); }
function onUiUpdate(f) { uiUpdateCallbacks.push(f); }
function onAfterUiUpdate(f) { afterUiUpdateCallbacks.push(f); }
function onUiTabChange(f) { uiTabChangeCallbacks.push(f); }
function onOptionsChanged(f) { optionsChangedCallbacks.push(f); }
function runAll(callbacks, arg) { for (const f of callbacks) { try { f(arg); } catch (e) { console.error(e); } } }

function updateInput(target) { // tell gradio that a script changed an input
    target.dispatchEvent(new Event("input", {bubbles: true}));
}

function onEdit(editId, elem, afterMs, func) { // call func once the user has paused for afterMs
    let timer = null;
    const edited = () => { clearTimeout(timer); timer = setTimeout(func, afterMs); };
    elem.addEventListener("input", edited);
    return edited;
}

function get_uiCurrentTab() { return document.querySelector("#tabs > .tab-nav > button.selected"); }
function get_uiCurrentTabContent() { return document.querySelector('#tabs > .tabitem[id^=tab_]:not([style*="display: none"])'); }

function currentImg2imgSourceResolution(w, h, scaleBy) {
    const image = document.querySelector("#img2img_image img");
    return image ? [image.naturalWidth, image.naturalHeight, scaleBy] : [0, 0, scaleBy];
}

function inputAccordionChecked(id, checked) { // the hidden checkbox changed
    const accordion = document.getElementById(id);
    const visible = document.getElementById(id + "-visible-checkbox");
    if (visible) visible.checked = checked;
    const label = accordion && accordion.querySelector(".label-wrap");
    if (label && label.classList.contains("open") !== checked) label.click();
}

function setupInputAccordions() { // add the visible checkboxes
    for (const accordion of document.querySelectorAll(".input-accordion:not([data-ready])")) {
        const label = accordion.querySelector(".label-wrap");
        const hidden = document.querySelector("#" + CSS.escape(accordion.id) + "-checkbox input");
        if (!label || !hidden) continue;
        accordion.dataset.ready = "1";
        const visible = document.createElement("input");
        visible.type = "checkbox";
        visible.id = accordion.id + "-visible-checkbox";
        visible.checked = hidden.checked;
        visible.addEventListener("click", (e) => e.stopPropagation());
        visible.addEventListener("change", () => { if (hidden.checked !== visible.checked) hidden.click(); });
        label.prepend(visible);
    }
}

document.addEventListener("DOMContentLoaded", () => {
    new MutationObserver((changes) => {
        setupInputAccordions();
        if (!uiLoaded && document.querySelector("#txt2img_prompt")) {
            uiLoaded = true;
            runAll(uiLoadedCallbacks);
            fetch("/sdapi/v1/options").then((r) => r.json()).then((o) => { opts = o; runAll(optionsChangedCallbacks); });
        }
        runAll(uiUpdateCallbacks, changes);
        clearTimeout(afterUpdateTimer);
        afterUpdateTimer = setTimeout(() => runAll(afterUiUpdateCallbacks), 200);
        const tab = get_uiCurrentTab();
        if (tab && tab !== uiTab) { uiTab = tab; runAll(uiTabChangeCallbacks); }
    }).observe(document, {childList: true, subtree: true});
});
