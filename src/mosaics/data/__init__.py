"""Reading pictures, sounds, captions and codes. The names are imported when they are first used."""

from mosaics.lazy_imports import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "BadDataError": "mosaics.data.skipped",
        "load_captioned_images": "mosaics.data.captioned_images",
        "load_captions": "mosaics.data.captioned_images",
        "load_eval_data": "mosaics.data.training_data",
        "load_train_data": "mosaics.data.training_data",
        "CodesDataset": "mosaics.data.codes",
        "CodeGrid": "mosaics.data.codes_format",
        "CodesDescription": "mosaics.data.codes_format",
        "CodesError": "mosaics.data.codes_format",
        "CodesWriter": "mosaics.data.codes_writer",
        "LabelledPictures": "mosaics.data.benchmark_sets",
        "CaptionError": "mosaics.data.captions",
        "ImageError": "mosaics.data.images",
        "PriorCodes": "mosaics.data.prior_codes",
        "PriorCodesArguments": "mosaics.data.prior_codes",
        "SoundError": "mosaics.data.sounds",
        "SoundFolder": "mosaics.data.sound_folder",
        "load_prior_codes": "mosaics.data.prior_codes",
        "read_codes": "mosaics.data.codes",
        "read_caption": "mosaics.data.captions",
        "read_image": "mosaics.data.images",
        "read_sound": "mosaics.data.sounds",
        "to_pixel_values": "mosaics.data.images",
        "tokenize": "mosaics.data.captions",
        "train_tokenizer": "mosaics.data.captions",
        "write_sound": "mosaics.data.sounds",
    },
)
