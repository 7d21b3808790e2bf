// The few browser functions of the host that the extension's script calls, and the check in an accordion's header.
const uiLoadedCallbacks = [];

function gradioApp() { return document; }
function onUiLoaded(f) { uiLoadedCallbacks.push(f); }

function currentImg2imgSourceResolution(w, h, scaleBy) {
    const image = document.querySelector("#img2img_image img");
    return image ? [image.naturalWidth, image.naturalHeight, scaleBy] : [0, 0, scaleBy];
}

function inputAccordionChecked(id, checked) { // the hidden checkbox changed
    document.getElementById(id + "-visible-checkbox").checked = checked;
    const label = document.querySelector("#" + CSS.escape(id) + " .label-wrap");
    if (label.classList.contains("open") !== checked) label.click();
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
    new MutationObserver(() => {
        setupInputAccordions();
        if (document.querySelector("#txt2img_prompt")) uiLoadedCallbacks.splice(0).forEach((f) => f());
    }).observe(document, {childList: true, subtree: true});
});
