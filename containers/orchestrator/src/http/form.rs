//! `multipart/form-data` with pictures, read into the request that the JSON body would be.

use aisemble_protocol::vision::{
    AnalyzeRequest, IMAGES_MAX, ImageInput, ResponseKind, TaskOptions,
};
use aisemble_protocol::{ApiError, ErrorCode};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream;
use multer::{Field, Multipart};

use super::extract;

/// Parts of a form: pictures, and as many for the fields.
const PARTS_MAX: usize = 2 * IMAGES_MAX;
/// Bytes of a part that is no picture.
const FIELD_BYTES_MAX: usize = 256 * 1024;

/// Whether a body of this content type is a form.
pub(super) fn is_form(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("multipart/form-data")
}

/// What separates the parts.
///
/// # Errors
/// `invalid_request` when the content type does not say.
pub(super) fn boundary(content_type: &str) -> Result<String, ApiError> {
    multer::parse_boundary(content_type).map_err(|_| {
        ApiError::invalid("content-type", "multipart/form-data needs a boundary parameter")
    })
}

/// Reads the form.
///
/// # Errors
/// `invalid_request`, naming the part; `payload_too_large` for a field that is none.
pub(super) async fn analyze_request(
    body: Bytes,
    boundary: String,
) -> Result<AnalyzeRequest, ApiError> {
    let body = stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let mut parts = Multipart::new(body, boundary);
    let (mut request, mut whole, mut images) = (AnalyzeRequest::default(), None, Vec::new());
    let mut count = 0;
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        count += 1;
        if count > PARTS_MAX {
            let message = format!("the form has over {PARTS_MAX} parts");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        let name: String = part.name().unwrap_or_default().chars().take(64).collect();
        match name.as_str() {
            "image" | "images" | "images[]" | "file" => {
                let bytes = part.bytes().await.map_err(broken)?;
                let data = Some(base64::engine::general_purpose::STANDARD.encode(bytes));
                images.push(ImageInput { data, file: None });
            }
            "request" => whole = Some(extract::parse(text(part, &name).await?.as_bytes())?),
            _ => set(&mut request, &name, &text(part, &name).await?)?,
        }
    }
    let mut request = match whole {
        None => request,
        Some(_) if request != AnalyzeRequest::default() => {
            let message = "give the fields in request, or each as a part of its own, not both";
            return Err(ApiError::invalid("request", message));
        }
        Some(whole) => whole,
    };
    request.images.extend(images);
    Ok(request)
}

async fn text(part: Field<'_>, name: &str) -> Result<String, ApiError> {
    let bytes = part.bytes().await.map_err(broken)?;
    if bytes.len() > FIELD_BYTES_MAX {
        let message = format!("{name} has {} bytes; the limit is {FIELD_BYTES_MAX}", bytes.len());
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param(name));
    }
    String::from_utf8(bytes.into())
        .map_err(|_| ApiError::invalid(name, format!("{name} is not UTF-8 text")))
}

fn set(request: &mut AnalyzeRequest, name: &str, value: &str) -> Result<(), ApiError> {
    let names = || value.split(',').map(str::trim).filter(|one| !one.is_empty());
    match name {
        "tasks" | "tasks[]" => request.tasks.extend(
            names().map(|task| TaskOptions { task: task.to_owned(), ..TaskOptions::default() }),
        ),
        "labels" | "labels[]" => request.labels.extend(names().map(str::to_owned)),
        "model" => request.model = Some(value.to_owned()),
        "top_k" => request.top_k = Some(number(name, value)?),
        "score_min" => request.score_min = Some(number(name, value)?),
        "nms_iou" => request.nms_iou = Some(number(name, value)?),
        "response" => {
            request.response = match value {
                "json" => ResponseKind::Json,
                "annotated" => ResponseKind::Annotated,
                _ => return Err(ApiError::invalid(name, "response must be json or annotated")),
            }
        }
        _ => {
            let message = format!(
                "the form has a part {name:?}; it takes image, tasks, labels, model, top_k, \
                 score_min, nms_iou, response and request"
            );
            return Err(ApiError::invalid(name, message));
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, ApiError> {
    let wrong = |_| ApiError::invalid(name, format!("{name} is not a number of the right kind"));
    value.trim().parse().map_err(wrong)
}

fn broken(error: multer::Error) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, format!("the form cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: Vec<u8>) -> Result<AnalyzeRequest, ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(analyze_request(body.into(), "b".to_owned()))
    }

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut body = String::new();
        for (name, value) in parts {
            body.push_str(&format!(
                "--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        body.push_str("--b--\r\n");
        body.into_bytes()
    }

    #[test]
    fn parts_become_the_request() {
        let parts = [("image", "abc"), ("tasks", "faces, ocr"), ("image", "d"), ("top_k", "3")];
        let request = read(form(&parts)).unwrap();
        let data: Vec<_> = request.images.iter().filter_map(|i| i.data.as_deref()).collect();
        assert_eq!(data, ["YWJj", "ZA=="]);
        let tasks: Vec<_> = request.tasks.iter().map(|task| task.task.as_str()).collect();
        assert_eq!((tasks, request.top_k), (vec!["faces", "ocr"], Some(3)));
        let whole = r#"{"tasks": [{"task": "faces", "score_min": 0.5}]}"#;
        let request = read(form(&[("request", whole), ("file", "x")])).unwrap();
        assert_eq!((request.tasks[0].score_min, request.images.len()), (Some(0.5), 1));
    }

    #[test]
    fn a_wrong_form_is_refused_with_what_is_wrong() {
        let check = |body: Vec<u8>, sentence: &str| {
            let error = read(body).unwrap_err();
            assert!(error.message.contains(sentence), "{}", error.message);
        };
        check(b"hello".to_vec(), "cannot be read");
        check(form(&[("image", "a")])[..40].to_vec(), "cannot be read");
        check(form(&[("colour", "red")]), "a part \"colour\"");
        check(form(&[("top_k", "many")]), "top_k is not a number");
        check(form(&[("response", "xml")]), "json or annotated");
        check(form(&[("request", "{}")]), "missing field `tasks`");
        check(form(&[("request", r#"{"tasks": []}"#), ("model", "m")]), "not both");
        check(form(&[("model", "m"); 40]), "over 32 parts");
        check(form(&[("model", &"m".repeat(300_000))]), "the limit is 262144");
        assert!(boundary("multipart/form-data").is_err());
        assert!(is_form("Multipart/Form-Data; boundary=x") && !is_form("application/json"));
    }

    proptest! {
        #[test]
        fn no_form_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut body = b"--b\r\ncontent-disposition: form-data; name=\"image\"\r\n".to_vec();
            body.extend(bytes);
            let _ = read(body);
        }
    }
}
