"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.data.benchmark_sets import LabelledPictures as LabelledPictures
from mosaics.data.captioned_images import load_captioned_images as load_captioned_images
from mosaics.data.captioned_images import load_captions as load_captions
from mosaics.data.captions import CaptionError as CaptionError
from mosaics.data.captions import read_caption as read_caption
from mosaics.data.captions import tokenize as tokenize
from mosaics.data.captions import train_tokenizer as train_tokenizer
from mosaics.data.codes import CodesDataset as CodesDataset
from mosaics.data.codes import read_codes as read_codes
from mosaics.data.codes_format import CodeGrid as CodeGrid
from mosaics.data.codes_format import CodesDescription as CodesDescription
from mosaics.data.codes_format import CodesError as CodesError
from mosaics.data.codes_writer import CodesWriter as CodesWriter
from mosaics.data.images import ImageError as ImageError
from mosaics.data.images import read_image as read_image
from mosaics.data.images import to_pixel_values as to_pixel_values
from mosaics.data.prior_codes import PriorCodes as PriorCodes
from mosaics.data.prior_codes import PriorCodesArguments as PriorCodesArguments
from mosaics.data.prior_codes import load_prior_codes as load_prior_codes
from mosaics.data.skipped import BadDataError as BadDataError
from mosaics.data.sound_folder import SoundFolder as SoundFolder
from mosaics.data.sounds import SoundError as SoundError
from mosaics.data.sounds import read_sound as read_sound
from mosaics.data.sounds import write_sound as write_sound
from mosaics.data.training_data import load_eval_data as load_eval_data
from mosaics.data.training_data import load_train_data as load_train_data
