// Draws the plan in the panel and its mark in the header. Every number and sentence comes from /hidiffusion/v1/plan.
(function () {
    const LOOK_EVERY = 250; // ms between two looks at the page's fields: at most that often, and one request at a time
    const ASK_AGAIN_AFTER = 10000; // ms after which an unchanged question is asked again: the model may have changed

    // What the route asks for -> the element of the host's page that has it; some pages lack some.
    const FIELDS = {
        txt2img: {
            width: "txt2img_width",
            height: "txt2img_height",
            steps: "txt2img_steps",
            sampler_name: "txt2img_sampling",
            scheduler: "txt2img_scheduler",
            cfg_scale: "txt2img_cfg_scale",
        },
        img2img: {
            width: "img2img_width",
            height: "img2img_height",
            steps: "img2img_steps",
            sampler_name: "img2img_sampling",
            scheduler: "img2img_scheduler",
            cfg_scale: "img2img_cfg_scale",
            denoising_strength: "img2img_denoising_strength",
        },
    };
    const HIRES_FIELDS = {
        enable_hr: "txt2img_hr-visible-checkbox",
        hr_scale: "txt2img_hr_scale",
        hr_resize_x: "txt2img_hr_resize_x",
        hr_resize_y: "txt2img_hr_resize_y",
        hr_second_pass_steps: "txt2img_hires_steps",
        hr_sampler_name: "hr_sampler",
        hr_scheduler: "hr_scheduler",
        hr_cfg: "txt2img_hr_cfg", // the Forge family's
        denoising_strength: "txt2img_denoising_strength",
    };

    const byId = (id) => gradioApp().getElementById(id);

    const LIST = "input:not([type])"; // where gradio's drop-down lists have their value, and what is typed to search
    const INPUT = `input[type=radio]:checked, input[type=checkbox], input[type=number], ${LIST}`;

    /** The value of a gradio control or an accordion's checkbox, as text; undefined if it has none. */
    function valueOf(id) {
        const control = byId(id);
        const input = control?.matches(INPUT) ? control : control?.querySelector(INPUT);
        if (!input) return undefined;
        return input.type === "checkbox" ? String(input.checked) : input.value;
    }

    /** Adds the values of the elements in `fields` (name -> id) to the question; empty ones are left out. */
    function addAll(question, fields) {
        for (const [name, id] of Object.entries(fields)) {
            const value = valueOf(id);
            if (value) question.set(name, value);
        }
    }

    /** What the page asks for now; a sentence instead if the size is not known yet. */
    function questionOf(tab, settings) {
        const question = new URLSearchParams();
        addAll(question, settings);
        addAll(question, FIELDS[tab]);
        if (tab === "txt2img" && valueOf(HIRES_FIELDS.enable_hr) === "true") addAll(question, HIRES_FIELDS);
        if (tab === "img2img" && byId("img2img_tab_resize_by")?.style.display === "block") {
            const [width, height] = currentImg2imgSourceResolution(0, 0, 1);
            if (!width) return "The size is taken from the picture: put one in first.";
            question.set("width", width);
            question.set("height", height);
            addAll(question, {scale_by: "img2img_scale"});
        }
        return question;
    }

    /** Lets the keyboard fold and unfold an accordion, where gradio makes its header no button. */
    function openByKeyboard(header) {
        if (!header || header.tagName === "BUTTON") return;
        header.tabIndex = 0;
        header.setAttribute("role", "button");
        header.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault();
            header.click();
        });
    }

    function element(tag, className, text) {
        const made = document.createElement(tag);
        made.className = className;
        if (text !== undefined) made.textContent = text;
        return made;
    }

    function drawing(width, height, label) {
        const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        const attributes = {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label};
        for (const [name, value] of Object.entries(attributes)) svg.setAttribute(name, value);
        return svg;
    }

    function addRectangle(svg, className, x, y, width, height) {
        const rectangle = document.createElementNS(svg.namespaceURI, "rect");
        for (const [name, value] of Object.entries({x, y, width, height})) rectangle.setAttribute(name, value);
        rectangle.setAttribute("class", className);
        svg.append(rectangle);
    }

    /** The picture and, dashed, what the model was made for, to scale. */
    function drawSize(pass) {
        const svg = drawing(100, 100, `${pass.width}x${pass.height}, dashed: ${pass.native}x${pass.native}`);
        const scale = 96 / Math.max(pass.width, pass.height, pass.native);
        const add = (className, width, height) =>
            addRectangle(svg, className, 2, 98 - height * scale, width * scale, height * scale);
        add(pass.active ? "size active" : "size", pass.width, pass.height);
        add("native", pass.native, pass.native);
        return svg;
    }

    /** One bar per step, as high as the work it takes; the line is a step without HiDiffusion. */
    function drawSteps(pass) {
        const top = Math.max(1, ...pass.work);
        const svg = drawing(pass.steps, top, `work in each of ${pass.steps} steps`);
        svg.setAttribute("preserveAspectRatio", "none");
        pass.work.forEach((work, step) => {
            addRectangle(svg, "whole", step + 0.06, top - 1, 0.88, 1);
            addRectangle(svg, pass.active ? "work active" : "work", step + 0.06, top - work, 0.88, work);
        });
        return svg;
    }

    function drawPass(pass) {
        const row = element("div", "pass");
        const size = element("div", "picture");
        size.append(drawSize(pass));
        const words = element("div", "words");
        const strength = pass.strength === null ? "" : `, strength ${pass.strength}`;
        const title = element("div", "title", `${pass.name}: ${pass.width}x${pass.height}${strength}`);
        title.append(element("span", "aside", `${pass.area}x the native area`));
        const steps = element("div", "steps");
        steps.append(drawSteps(pass));
        words.append(title, element("div", "text", pass.text), element("div", "aside", pass.speed), steps);
        row.append(size, words);
        return row;
    }

    /** Says something under a control, and greys it if it has no effect. */
    function note(control, text, withoutEffect) {
        let place = control.querySelector(".hidiffusion-note");
        if (!place && !text) return;
        if (!place) control.append((place = element("div", "hidiffusion-note")));
        if (place.textContent !== text) place.textContent = text;
        control.classList.toggle("hidiffusion-without-effect", withoutEffect);
    }

    /** One tab's plan: looks at the fields, asks when they have changed, draws the answer. */
    class PlanView {
        constructor(tab, place) {
            this.tab = tab;
            this.place = place;
            this.told = JSON.parse(place.dataset.told);
            this.asked = "";
            this.askedAt = 0;
            this.waiting = false;
            this.passes = element("div", "passes");
            this.model = element("div", "aside");
            this.notice = element("div", "notice");
            this.notice.setAttribute("role", "status");
            place.append(this.passes, this.notice, this.model);
            this.mark = element("span", "hidiffusion-mark");
            byId(this.told.panel)?.querySelector(".label-wrap")?.lastElementChild?.before(this.mark);
        }

        get ticked() {
            return valueOf(`${this.told.panel}-visible-checkbox`) === "true";
        }

        async look() {
            this.mark.hidden = !this.ticked;
            if (this.waiting || document.hidden || !byId(`tab_${this.tab}`)?.offsetParent) return;
            if (document.activeElement?.matches(LIST)) return; // somebody searches in a list
            if (!this.ticked && !this.place.offsetParent) return; // nobody sees it
            const question = questionOf(this.tab, this.told.settings);
            const text = question.toString();
            if (text === this.asked && Date.now() - this.askedAt < ASK_AGAIN_AFTER) return;
            this.asked = text;
            this.askedAt = Date.now();
            if (typeof question === "string") return this.say(question);
            this.waiting = true;
            const answer = await this.ask(text);
            this.waiting = false;
            if (typeof answer === "string") return this.say(answer);
            if (answer.refused) this.say(`Not possible: ${answer.refused}.`);
            else this.show(answer);
            this.mark.textContent = answer.mark;
        }

        /** The route's answer; a sentence instead if it has none. */
        async ask(question) {
            try {
                const response = await fetch(`${this.told.path}?${question}`, {
                    headers: {"X-HiDiffusion-Page": this.told.key},
                    signal: AbortSignal.timeout(ASK_AGAIN_AFTER),
                });
                const answer = await response.json();
                return response.ok ? answer : `${answer.detail}.`;
            } catch {
                return "The WebUI does not answer; the plan is shown again when it does.";
            }
        }

        show(answer) {
            this.place.classList.remove("silent");
            this.notice.textContent = "";
            const native = answer.passes[0].native;
            const about = `${answer.model}, made for ${native}x${native}. Bars: the work in each step.`;
            this.model.textContent = answer.advice ? `${answer.advice} ${about}` : about;
            this.passes.replaceChildren(...answer.passes.map(drawPass));
            for (const [name, id] of Object.entries(this.told.settings)) {
                const control = byId(id);
                if (control) note(control, answer.notes[name] ?? "", answer.without_effect.includes(name));
            }
        }

        /** Shows a sentence instead of the plan; the last plan stays behind it, faded. */
        say(sentence) {
            this.place.classList.add("silent");
            this.notice.textContent = sentence;
            this.mark.textContent = "";
        }
    }

    onUiLoaded(() => {
        for (const tab of Object.keys(FIELDS)) {
            const place = gradioApp().querySelector(`#script_${tab}_hidiffusion_plan .hidiffusion-plan`);
            if (!place) continue;
            const view = new PlanView(tab, place);
            openByKeyboard(byId(view.told.advanced)?.querySelector(".label-wrap"));
            setInterval(() => view.look(), LOOK_EVERY);
        }
    });
})();
