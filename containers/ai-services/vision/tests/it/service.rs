//! What the service answers over its socket.

use aisemble_protocol::vision::Task;
use aisemble_protocol::{ErrorCode, v1};

use crate::data::{models, picture};
use crate::instance::{Instance, request};

#[tokio::test]
async fn it_answers_confined_and_says_what_it_is() {
    let instance = Instance::of_all(&[]);
    let described = instance.model().describe(v1::DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!(described.service, "vision");
    let expected = models();
    assert_eq!(described.models.len(), expected.len());
    for (model, expected) in described.models.iter().zip(&expected) {
        assert_eq!((&model.name, &model.license), (&expected.name, &expected.license));
        assert_eq!(model.sha256, expected.files[0].1);
        assert!(model.parameters > 1_000_000 && !model.tasks.is_empty(), "{model:?}");
    }
    let classifier = &described.models[0];
    assert_eq!((classifier.labels.len(), classifier.embedding_dimensions), (1000, 1280));
    assert_eq!(classifier.labels[282], "tiger cat");
    assert_eq!(classifier.tasks, ["classify", "embed"]);
    let sandbox = described.sandbox.unwrap();
    assert!(sandbox.locked_down && sandbox.no_new_privs && sandbox.seccomp_mode == 2);
    assert_eq!(sandbox.policy, "vision");
    let checks =
        instance.model().self_check(v1::SelfCheckRequest {}).await.unwrap().into_inner().checks;
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed).collect();
    assert!(!checks.is_empty() && failed.is_empty(), "{failed:#?}");

    let all = [Task::Classify, Task::Faces, Task::Detect];
    let (results, finished) =
        instance.analyze(request(vec![picture("astronaut.png")], &all)).await.unwrap();
    assert_eq!(results[0].faces.as_ref().unwrap().faces.len(), 1);
    assert_eq!(results[0].detect.as_ref().unwrap().detections.len(), 1);
    assert!(results[0].ocr.is_none() && results[0].embed.is_none());
    let used: Vec<_> = finished.models.iter().map(|used| (&*used.task, &*used.model)).collect();
    let expected =
        [("classify", "efficientnet-lite0"), ("faces", "centerface"), ("detect", "ssdlite-person")];
    assert_eq!(used, expected);
    assert!(finished.decode_us > 0 && finished.model_us > 0);

    instance.terminate();
    let (code, lines) = instance.end();
    assert_eq!(code, Some(0));
    let log = serde_json::to_string(&lines).unwrap();
    assert!(!log.contains("helmet"), "the log contains what was found");
}

#[tokio::test]
async fn a_picture_gives_the_same_alone_and_among_others() {
    let instance = Instance::serving(&["efficientnet-lite0", "centerface"], &[]);
    let names =
        ["astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "page.png"];
    let tasks = [Task::Embed, Task::Faces];
    let mut alone = Vec::new();
    for name in names {
        let (results, _) = instance.analyze(request(vec![picture(name)], &tasks)).await.unwrap();
        alone.extend(results);
    }
    let images = || names.map(picture).to_vec();
    let (one, two) = tokio::join!(
        instance.analyze(request(images(), &tasks)),
        instance.analyze(request(images(), &tasks))
    );
    for (index, expected) in alone.iter().enumerate() {
        for (results, _) in [one.as_ref().unwrap(), two.as_ref().unwrap()] {
            let found = &results[index];
            assert_eq!(found.index as usize, index);
            assert_eq!((&found.embed, &found.faces), (&expected.embed, &expected.faces));
        }
    }
    let stats = instance.model().stats(v1::StatsRequest {}).await.unwrap().into_inner();
    // 18 pictures through two models; those of one size went together.
    assert_eq!(stats.step_rows_total, 36);
    assert!(stats.steps_total < 36, "{stats:?}");
    assert_eq!((stats.requests_running, stats.requests_queued), (0, 0));
}

#[tokio::test]
async fn options_are_kept_to() {
    let instance = Instance::serving(&["efficientnet-lite0", "centerface", "ssdlite-person"], &[]);
    let mut asked = request(
        vec![picture("chelsea.png"), picture("astronaut.png")],
        &[Task::Classify, Task::Faces, Task::Detect],
    );
    asked.tasks[0].top_k = 3;
    asked.tasks[0].score_min = Some(0.2);
    asked.tasks[1].score_min = Some(0.95);
    asked.tasks[2].labels = vec!["person".to_owned()];
    asked.annotated = true;
    let (results, _) = instance.analyze(asked).await.unwrap();
    let labels: Vec<&str> =
        results[0].classify.as_ref().unwrap().labels.iter().map(|label| &*label.label).collect();
    assert_eq!(labels, ["tiger cat", "Egyptian cat"]);
    assert!(results[1].faces.as_ref().unwrap().faces.is_empty(), "0.93 is below 0.95");
    assert_eq!(results[1].detect.as_ref().unwrap().detections.len(), 1);
    let drawn = results[1].annotated.as_ref().unwrap();
    assert_eq!(drawn.media_type, "image/jpeg");
    let drawn = image::load_from_memory(&drawn.data).unwrap().into_rgb8();
    assert_eq!(drawn.dimensions(), (512, 512));
    // The left edge of the person's box is green, and was not in the picture.
    let green = |rgb: &image::Rgb<u8>| rgb.0[1] > 150 && rgb.0[0] < 80;
    assert!((100..400).all(|y| (2..6).any(|x| green(drawn.get_pixel(x, y)))));
}

#[tokio::test]
async fn notes_say_what_was_done_to_a_picture() {
    let instance = Instance::serving(&["efficientnet-lite0"], &[]);
    let images = vec![picture("no_time_for_that_tiny.gif"), picture("multipage.tif")];
    let (results, _) = instance.analyze(request(images, &[Task::Classify])).await.unwrap();
    assert_eq!((&*results[0].format, &*results[1].format), ("gif", "tiff"));
    assert!(results[0].notes.contains(&"first of 24 frames".to_owned()), "{:?}", results[0].notes);
    assert!(results[1].notes.contains(&"first of 2 pages".to_owned()), "{:?}", results[1].notes);
}

#[tokio::test]
async fn who_leaves_frees_its_place_and_who_comes_too_much_is_sent_away() {
    let instance = Instance::serving(&["centerface"], &["engine.requests_max=1"]);
    let images = vec![picture("retina.jpg"); 16];
    let long = || request(images.clone(), &[Task::Faces]);
    let mut stream = instance.vision().analyze(long()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some(), "results come one by one");
    let error = instance.refused(request(vec![picture("coins.png")], &[Task::Faces])).await;
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(error.retry_after_ms.is_some_and(|ms| (1000..=60_000).contains(&ms)), "{error:?}");
    drop(stream);
    // The place is free as soon as the service has seen that nobody reads.
    loop {
        let small = request(vec![picture("coins.png")], &[Task::Faces]);
        match instance.analyze(small).await {
            Ok((results, _)) => break assert_eq!(results.len(), 1),
            Err(error) => assert_eq!(error.code, ErrorCode::Overloaded, "{error:?}"),
        }
    }
    let stats = instance.model().stats(v1::StatsRequest {}).await.unwrap().into_inner();
    assert!(stats.step_rows_total < 16, "what nobody waits for is not computed: {stats:?}");
}

#[test]
fn a_file_that_is_not_the_pinned_one_is_not_served() {
    let mut models = models();
    models.truncate(1);
    let wrong = "0".repeat(64);
    models[0].files[0].1.clone_from(&wrong);
    let (code, lines) = Instance::start(&models, &[]).end();
    assert_eq!(code, Some(78));
    let line = lines.iter().find(|line| line["level"] == "error").unwrap();
    assert!(line["error.cause"].as_str().unwrap().contains(&wrong), "{line:#}");
}
