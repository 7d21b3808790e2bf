"""The plan's route on a running host, while it makes a picture; on the stand-in and on a real A1111."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from client import WebUI

PATH = "/hidiffusion/v1/plan?width=128&height=128&steps=12&native_size=64"


def test_it_answers_the_same_while_a_picture_is_made(webui: WebUI) -> None:
    expected = webui.call(PATH)
    assert expected["passes"][0]["text"] == "RAU-Net until step 5 of 12, MSW-MSA"
    webui.txt2img(steps=1)  # the probe knows no call of the UNet any more
    before = webui.fingerprint()
    options = {"HiDiffusion": {"args": [{"enabled": True, "native_size": 64}]}}
    with ThreadPoolExecutor(1) as pool:
        probe = [{"hold": 3}]
        job = pool.submit(webui.txt2img, width=128, height=128, steps=12, alwayson_scripts=options, probe=probe)
        while not job.done() and webui.names().count("unet") <= 3:
            time.sleep(0.1)
        try:
            held = [webui.call(PATH) for _ in range(4)]
            assert not job.done()
        finally:
            webui.call("/probe/go")
        answers = [*held]
        while not job.done():
            answers.append(webui.call(PATH))
        _, info = job.result()
    assert all(answer == expected for answer in answers)
    assert info["extra_generation_params"]["HiDiffusion"] == "RAU-Net until step 5 of 12, MSW-MSA"
    assert webui.fingerprint() == before
