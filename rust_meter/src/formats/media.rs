//! OpenAI images and transcriptions: tokens, seconds, or a number of images.

use crate::tree::{Entry, Field, Node, Source, Take, count, leaf, list, object};

const INPUT_DETAILS: &[Entry] = &[
    ("cached_tokens", count(Field::Cached)),
    ("audio_tokens", count(Field::AudioInput)),
    ("image_tokens", count(Field::ImageInput)),
];
const OUTPUT_DETAILS: &[Entry] = &[
    ("reasoning_tokens", count(Field::Reasoning)),
    ("audio_tokens", count(Field::AudioOutput)),
    ("image_tokens", count(Field::ImageOutput)),
];
const USAGE: &[Entry] = &[
    ("input_tokens", count(Field::Input)),
    ("output_tokens", count(Field::Output)),
    ("total_tokens", count(Field::Total)),
    ("input_tokens_details", object(Take::Step, INPUT_DETAILS)),
    ("input_token_details", object(Take::Step, INPUT_DETAILS)),
    ("output_tokens_details", object(Take::Step, OUTPUT_DETAILS)),
    ("seconds", count(Field::Seconds)),
    ("cost_in_usd_ticks", count(Field::Cost)),
];
static IMAGE: Node = object(Take::Step, &[]);
const IMAGES_ROOT: &[Entry] = &[
    ("type", leaf(Take::Kind)),
    ("usage", object(Take::Usage(Source::Main), USAGE)),
    ("data", list(Take::Data, &IMAGE)),
    ("error", leaf(Take::Error)),
];
/// An images body or event.
pub static IMAGES: Node = object(Take::Step, IMAGES_ROOT);

const TRANSCRIPTIONS_ROOT: &[Entry] = &[
    ("type", leaf(Take::Kind)),
    ("usage", object(Take::Usage(Source::Main), USAGE)),
    ("text", leaf(Take::Repeat)),
    ("delta", leaf(Take::Output)),
    ("error", leaf(Take::Error)),
];
/// A transcriptions body or event.
pub static TRANSCRIPTIONS: Node = object(Take::Step, TRANSCRIPTIONS_ROOT);
