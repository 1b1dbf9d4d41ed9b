//! What is no picture, too much, or not to be done here: each is answered with what is wrong.

use aisemble_protocol::vision::Task;
use aisemble_protocol::{ErrorCode, v1};

use crate::data::picture;
use crate::instance::{Instance, request};

/// A PNG file whose header says `width` x `height` and that has nothing behind it.
fn promised(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::GrayImage::new(1, 1);
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = bytes[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    });
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

#[tokio::test]
async fn bad_pictures_and_requests_are_told_what_is_wrong() {
    let instance = Instance::serving(&["efficientnet-lite0"], &[]);
    let good = picture("coins.png");
    let check = async |images: Vec<Vec<u8>>, code, param: &str, sentence: &str| {
        let error = instance.refused(request(images, &[Task::Classify])).await;
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{error:?}");
        assert!(error.message.contains(sentence), "{error:?}");
    };
    let (invalid, unprocessable) = (ErrorCode::InvalidRequest, ErrorCode::Unprocessable);
    let large = ErrorCode::PayloadTooLarge;
    check(vec![], invalid, "images", "at least one").await;
    check(vec![vec![]], invalid, "images[0]", "no bytes").await;
    check(vec![good.clone(); 17], invalid, "images", "at most 16").await;
    let text = b"This is a text and no picture.".to_vec();
    check(vec![good.clone(), text], unprocessable, "images[1]", "none of JPEG").await;
    check(vec![vec![0; 100_000]], unprocessable, "images[0]", "none of JPEG").await;
    let mut cut = picture("rocket.jpg");
    cut.truncate(cut.len() / 3);
    check(vec![good.clone(), cut], unprocessable, "images[1]", "not a readable jpeg").await;
    check(vec![promised(30_000, 30_000)], large, "images[0]", "30000 x 30000").await;
    check(vec![promised(7000, 7000)], large, "images[0]", "times its file's size").await;
    check(vec![promised(200, 200)], unprocessable, "images[0]", "not a readable png").await;

    let task = |name: &str| v1::VisionTask { task: name.to_owned(), ..v1::VisionTask::default() };
    let check = async |task: v1::VisionTask, code, sentence: &str| {
        let mut asked = request(vec![good.clone()], &[]);
        asked.tasks = vec![task];
        let error = instance.refused(asked).await;
        assert_eq!((error.code, error.param.as_deref()), (code, Some("tasks[0]")), "{error:?}");
        assert!(error.message.contains(sentence), "{error:?}");
    };
    check(task("dream"), invalid, "the tasks are classify, embed").await;
    check(task("faces"), unprocessable, "centerface would give it").await;
    check(task("ocr"), unprocessable, "craft-mlt-25k together with crnn-english-g2").await;
    check(task("caption"), unprocessable, "no model for the task caption").await;
    let labels = vec!["a".to_owned(); 10_000];
    check(v1::VisionTask { labels, ..task("zero_shot") }, invalid, "at most 1000").await;
    let model = "resnet".to_owned();
    let other = v1::VisionTask { model, ..task("classify") };
    check(other, unprocessable, "\"resnet\" is not loaded for the task classify").await;
    check(v1::VisionTask { top_k: 2000, ..task("classify") }, invalid, "between 1 and 1000").await;
    let wild = v1::VisionTask { score_min: Some(f32::NAN), ..task("classify") };
    check(wild, invalid, "between 0 and 1").await;

    // And it still serves.
    let (results, _) =
        instance.analyze(request(vec![good.clone()], &[Task::Classify])).await.unwrap();
    assert_eq!(results[0].classify.as_ref().unwrap().labels.len(), 5);
}

#[tokio::test]
async fn pictures_of_strange_forms_are_answered() {
    let instance = Instance::of_all(&[]);
    let encode = |width, height| {
        let mut bytes = Vec::new();
        let image =
            image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 9]));
        image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bytes
    };
    let sizes = [(1, 1), (1, 3000), (3000, 1), (33, 31)];
    let images = sizes.map(|(width, height)| encode(width, height)).to_vec();
    let tasks = [Task::Classify, Task::Embed, Task::Faces, Task::Detect, Task::Ocr];
    let mut asked = request(images, &tasks);
    asked.annotated = true;
    let (results, _) = instance.analyze(asked).await.unwrap();
    for (result, size) in results.iter().zip(sizes) {
        assert_eq!((result.width, result.height), size);
        assert!(result.classify.is_some() && result.ocr.is_some() && result.annotated.is_some());
        assert!(result.embed.as_ref().unwrap().values.iter().all(|value| value.is_finite()));
    }
}
