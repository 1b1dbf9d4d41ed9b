//! `ai-semble see`: what is in pictures.

use std::fs;
use std::path::{Path, PathBuf};

use aisemble_protocol::vision::{
    AnalyzeRequest, BoundingBox, IMAGE_BYTES_MAX, IMAGES_MAX, ImageInput, ImageResult,
    ResponseKind, Task, TaskOptions,
};
use base64::Engine as _;

use super::texts::short;
use super::{connect, work};
use crate::args::{Global, See};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::Terminal;

const SHOWN_CHARS: usize = 100;

/// Runs the command.
///
/// # Errors
/// As the call; when a picture cannot be read or written.
pub async fn run(global: &Global, options: See, terminal: Terminal) -> Outcome<()> {
    let request = request(&options)?;
    if let Some(path) = &options.annotated
        && options.images.len() > 1
        && !path.is_dir()
    {
        let message = format!("{} is no folder", path.display());
        return Err(Failure::new(Exit::Usage, message)
            .hint("with several pictures --annotated names a folder that exists"));
    }
    let result = work::run(&connect(global)?, &request, terminal).await?;
    if let Some(target) = &options.annotated {
        for image in &result.results {
            let source = options.images.get(image.index as usize);
            write_annotated(image, source, target, terminal)?;
        }
    }
    if terminal.json {
        return terminal.data(&result);
    }
    for image in &result.results {
        let path = options.images.get(image.index as usize);
        show(image, path.map(PathBuf::as_path), options.images.len() > 1, terminal)?;
    }
    Ok(())
}

fn request(options: &See) -> Outcome<AnalyzeRequest> {
    if options.images.len() > IMAGES_MAX {
        let message = format!("{} pictures; {IMAGES_MAX} at most", options.images.len());
        return Err(Failure::new(Exit::Usage, message));
    }
    let images = options.images.iter().map(|path| read(path)).collect::<Outcome<_>>()?;
    let mut tasks = options.task.clone();
    tasks.sort_unstable();
    tasks.dedup();
    Ok(AnalyzeRequest {
        images,
        tasks: tasks.iter().copied().map(TaskOptions::from).collect(),
        model: options.model.clone(),
        top_k: Some(options.top),
        score_min: options.score_min,
        labels: if tasks.contains(&Task::ZeroShot) {
            options.label.iter().chain(&options.labels).cloned().collect()
        } else {
            Vec::new()
        },
        response: match options.annotated {
            Some(_) => ResponseKind::Annotated,
            None => ResponseKind::Json,
        },
        ..AnalyzeRequest::default()
    })
}

fn read(path: &Path) -> Outcome<ImageInput> {
    let data = fs::metadata(path).map_err(|error| Failure::file("read", path, error))?;
    if data.len() > IMAGE_BYTES_MAX as u64 {
        let message =
            format!("{} has {} bytes; {IMAGE_BYTES_MAX} at most", path.display(), data.len());
        return Err(Failure::new(Exit::Usage, message).hint("scale it down first"));
    }
    let bytes = fs::read(path).map_err(|error| Failure::file("read", path, error))?;
    let data = base64::engine::general_purpose::STANDARD.encode(bytes);
    Ok(ImageInput { data: Some(data), file: None })
}

fn write_annotated(
    image: &ImageResult,
    source: Option<&PathBuf>,
    target: &Path,
    terminal: Terminal,
) -> Outcome<()> {
    let Some(annotated) = &image.annotated else { return Ok(()) };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&annotated.data)
        .map_err(|error| Failure::new(Exit::Failed, "the picture is no base64").because(error))?;
    let path = match source.and_then(|source| source.file_stem()) {
        Some(stem) if target.is_dir() => {
            target.join(format!("{}-annotated.png", stem.to_string_lossy()))
        }
        Some(_) | None => target.to_owned(),
    };
    fs::write(&path, bytes).map_err(|error| Failure::file("write", &path, error))?;
    terminal.note(&format!("Wrote {}", path.display()));
    Ok(())
}

fn show(image: &ImageResult, path: Option<&Path>, many: bool, terminal: Terminal) -> Outcome<()> {
    if many {
        let name = path.map(|path| path.display().to_string()).unwrap_or_default();
        terminal.line(&format!("{name} ({}x{})", image.width, image.height))?;
    }
    for note in &image.notes {
        terminal.note(note);
    }
    for (task, labels) in [("classify", &image.classify), ("zero_shot", &image.zero_shot)] {
        for label in labels.iter().flatten() {
            terminal.line(&format!("{task:<9} {:.3}  {}", label.score, label.label))?;
        }
    }
    for found in image.detect.iter().flatten() {
        let place = place(&found.bounds);
        terminal.line(&format!("detect    {:.3}  {} at {place}", found.score, found.label))?;
    }
    for face in image.faces.iter().flatten() {
        terminal.line(&format!("face      {:.3}  at {}", face.score, place(&face.bounds)))?;
    }
    for (task, found) in [
        ("detect", &image.detect.as_ref().map(Vec::is_empty)),
        ("faces", &image.faces.as_ref().map(Vec::is_empty)),
    ] {
        if *found == Some(true) {
            terminal.note(&format!("{task}: nothing was found"));
        }
    }
    if let Some(text) = &image.ocr {
        for line in &text.lines {
            let text = short(&line.text, SHOWN_CHARS);
            terminal.line(&format!("text      {:.3}  {text}", line.score))?;
        }
    }
    if let Some(values) = &image.embed {
        let shown: Vec<_> = values.iter().take(6).map(|value| format!("{value:.3}")).collect();
        terminal.line(&format!("embed     [{}, …] {} values", shown.join(", "), values.len()))?;
    }
    if let Some(caption) = &image.caption {
        terminal.line(&format!("caption   {caption}"))?;
    }
    Ok(())
}

fn place(bounds: &BoundingBox) -> String {
    let BoundingBox { left, top, right, bottom } = bounds;
    format!("{left:.0},{top:.0}-{right:.0},{bottom:.0}")
}
