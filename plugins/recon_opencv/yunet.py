"""The detector ``yunet``: OpenCV's runner of the face network YuNet, whose file the user brings."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recon_opencv.cascades import opencv
from recon_toolkit import DataError, Detection
from recon_toolkit.detection import check_image, distinct

_REMEDY = (
    "get face_detection_yunet_2023mar.onnx from OpenCV's model zoo (Apache-2.0), and name it: "
    "--detector yunet --detector-set model=FILE"
)


class YuNet:
    """Faces of people by YuNet (Wu et al. 2023), which also finds turned, tilted and small ones.

    Its boxes mean what :class:`~recon_toolkit.Detection` says: measured on the crops of Wu et al.'s demo, their mean
    width, height and place differ from it by 0.02 of the crop's side.

    Args:
        model: the network's ONNX file; it is not part of this package.
        score: lowest score that counts, of 1.
        smallest: smallest face, as a share of the picture's shorter side (of the crop around it).
        largest_side: a picture with a longer side is scaled down to this first. Faces of 10 to 300 pixels are found.
        border: share of the picture that is added around it by repeating the edges, for faces that touch them.

    Raises:
        PluginError: OpenCV is not installed.
        DataError: ``model`` is missing, or no network that OpenCV can run.
    """

    finds = "face"

    def __init__(
        self,
        *,
        model: Path,
        score: Annotated[float, Field(gt=0, lt=1)] = 0.7,
        smallest: Annotated[float, Field(ge=0, le=1)] = 0.04,
        largest_side: Annotated[int, Field(ge=32)] = 640,
        border: Annotated[float, Field(ge=0, le=1)] = 0.15,
    ) -> None:
        self.model, self.score, self.smallest = Path(model).expanduser(), score, smallest
        self.largest_side, self.border = largest_side, border
        self._networks = _Networks(self.model, score)

    def __call__(self, image: NDArray[np.uint8], /) -> list[Detection]:
        """Find faces in an image (H, W, 3) RGB uint8; the best first, labelled ``human``."""
        check_image(image)
        if image.size == 0:
            return []
        cv2 = opencv()
        height, width = image.shape[:2]
        scale = min(1.0, self.largest_side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
        pad = round(self.border * max(size))
        bordered = cv2.copyMakeBorder(small[..., ::-1], pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        network = self._networks.network
        network.setInputSize((bordered.shape[1], bordered.shape[0]))
        _, rows = network.detect(bordered)
        x_scale, y_scale = width / size[0], height / size[1]
        detections = [
            Detection(
                (float(row[0]) - pad) * x_scale,
                (float(row[1]) - pad) * y_scale,
                float(row[2]) * x_scale,
                float(row[3]) * y_scale,
                float(row[-1]),
                "human",
            )
            for row in (() if rows is None else rows)
            if row[2] > 0 and row[3] > 0
        ]
        return distinct(detections, smallest=self.smallest * min(height, width))


class _Networks(threading.local):
    """The network, for each thread its own: OpenCV's must not be shared."""

    def __init__(self, file: Path, score: float) -> None:
        self._of = (file, score)
        self.network: Any = _load(file, score)

    def __reduce__(self) -> tuple[type[_Networks], tuple[Path, float]]:
        return _Networks, self._of


def _load(file: Path, score: float) -> Any:
    cv2 = opencv()
    if not file.is_file():
        raise DataError("there is no such file", where=str(file), remedy=_REMEDY)
    try:
        network = cv2.FaceDetectorYN.create(str(file), "", (320, 320), score)
        network.detect(np.zeros((320, 320, 3), np.uint8))
    except cv2.error as error:
        cause = " ".join(str(getattr(error, "err", None) or error).split())
        raise DataError(f"OpenCV cannot run it as YuNet: {cause:.200}", where=str(file), remedy=_REMEDY) from None
    return network
