"""Where the rows come from. Titles are those of the linked versions, years those of the first ones."""

from __future__ import annotations

from difflib import get_close_matches

from trichrome.errors import TrichromeError
from trichrome.papers.pattern.paper import Citation

CITATIONS: tuple[Citation, ...] = (
    Citation(
        0,
        "m3",
        (
            "M3-Embedding: Multi-Linguality, Multi-Functionality, Multi-Granularity Text Embeddings Through "
            "Self-Knowledge Distillation"
        ),
        "Jianlv Chen et al.",
        2024,
        "https://arxiv.org/abs/2402.03216",
        ("head", "teacher", "batch sampler", "stages"),
    ),
    Citation(
        1,
        "probtree",
        "Probabilistic Tree-of-thought Reasoning for Answering Knowledge-intensive Complex Questions",
        "Shulin Cao et al.",
        2023,
        "https://arxiv.org/abs/2311.13982",
        ("context for a reader",),
    ),
    Citation(
        2,
        "cet",
        "Hard Negatives or False Negatives: Correcting Pooling Bias in Training Neural Ranking Models",
        "Yinqiong Cai et al.",
        2022,
        "https://arxiv.org/abs/2209.05072",
        ("negative sampler", "false-negative filter"),
    ),
    Citation(
        3,
        "dont_retrieve",
        "Don't Retrieve, Generate: Prompting LLMs for Synthetic Training Data in Dense Retrieval",
        "Aarush Sinha",
        2025,
        "https://arxiv.org/abs/2504.21015",
        ("synthetic data",),
    ),
    Citation(
        4,
        "star_adore",
        "Optimizing Dense Retrieval Model Training with Hard Negatives",
        "Jingtao Zhan et al.",
        2021,
        "https://arxiv.org/abs/2104.08051",
        ("negative sampler", "loss"),
    ),
    Citation(
        5,
        "trustworthy_rag",
        "Trustworthiness in Retrieval-Augmented Generation Systems: A Survey",
        "Yujia Zhou et al.",
        2024,
        "https://arxiv.org/abs/2409.10102",
        ("robustness",),
    ),
    Citation(
        6,
        "mm_embed",
        "MM-Embed: Universal Multimodal Retrieval with Multimodal LLMs",
        "Sheng-Chieh Lin et al.",
        2024,
        "https://arxiv.org/abs/2411.02571",
        ("multimodal", "negative sampler"),
    ),
    Citation(
        7,
        "udcg",
        "Redefining Retrieval Evaluation in the Era of LLMs",
        "Giovanni Trappolini et al.",
        2025,
        "https://arxiv.org/abs/2510.21440",
        ("metric",),
    ),
    Citation(
        8,
        "car",
        "Chronologically Accurate Retrieval for Temporal Grounding of Motion-Language Models",
        "Kent Fujiwara, Mikihiro Tanaka, Qing Yu",
        2024,
        "https://arxiv.org/abs/2407.15408",
        ("metric", "negative sampler"),
    ),
    Citation(
        9,
        "peg",
        "Towards Robust Text Retrieval with Progressive Learning",
        "Tong Wu et al.",
        2023,
        "https://arxiv.org/abs/2311.11691",
        ("loss",),
    ),
    Citation(
        10,
        "leandojo",
        "LeanDojo: Theorem Proving with Retrieval-Augmented Language Models",
        "Kaiyu Yang et al.",
        2023,
        "https://arxiv.org/abs/2306.15626",
        ("negative sampler", "data"),
    ),
    Citation(
        11,
        "technique_rag",
        (
            "TechniqueRAG: Retrieval Augmented Generation for Adversarial Technique Annotation in Cyber "
            "Threat Intelligence Text"
        ),
        "Ahmed Lekssays et al.",
        2025,
        "https://arxiv.org/abs/2505.11988",
        ("context for a reader", "data"),
    ),
    Citation(
        12,
        "mw_loss",
        "Optimizing What Matters: AUC-Driven Learning for Robust Neural Retrieval",
        "Nima Sheikholeslami et al.",
        2025,
        "https://arxiv.org/abs/2510.00137",
        ("loss", "metric"),
    ),
    Citation(
        13,
        "spn4cir",
        "Improving Composed Image Retrieval via Contrastive Learning with Scaling Positives and Negatives",
        "Zhangchi Feng, Richong Zhang, Zhijie Nie",
        2024,
        "https://arxiv.org/abs/2404.11317",
        ("negative sampler",),
    ),
    Citation(
        14,
        "knowpo",
        (
            "KnowPO: Knowledge-aware Preference Optimization for Controllable Knowledge Selection in "
            "Retrieval-Augmented Language Models"
        ),
        "Ruizhe Zhang et al.",
        2024,
        "https://arxiv.org/abs/2408.03297",
        ("loss",),
    ),
    Citation(
        15,
        "bioral",
        (
            "Benchmarking Retrieval-Augmented Large Language Models in Biomedical NLP: Application, "
            "Robustness, and Self-Awareness"
        ),
        "Mingchen Li et al.",
        2024,
        "https://arxiv.org/abs/2405.08151",
        ("robustness",),
    ),
    Citation(
        16,
        "ecthr_pcr",
        (
            "ECtHR-PCR: A Dataset for Precedent Understanding and Prior Case Retrieval in the European "
            "Court of Human Rights"
        ),
        "T.Y.S.S. Santosh, Rashid Gustav Haddad, Matthias Grabmair",
        2024,
        "https://arxiv.org/abs/2404.00596",
        ("data", "negative sampler"),
    ),
    Citation(
        17,
        "ufinebench",
        "UFineBench: Towards Text-based Person Retrieval with Ultra-fine Granularity",
        "Jialong Zuo et al.",
        2023,
        "https://arxiv.org/abs/2312.03441",
        ("metric", "multimodal"),
    ),
    Citation(
        18,
        "mmgeolm",
        (
            "MMGeoLM: Hard Negative Contrastive Learning for Fine-Grained Geometric Understanding in Large "
            "Multimodal Models"
        ),
        "Kai Sun et al.",
        2025,
        "https://arxiv.org/abs/2505.20152",
        ("synthetic data", "loss"),
    ),
    Citation(
        19,
        "cor",
        "Composed Object Retrieval: Object-level Retrieval via Composed Expressions",
        "Tong Wang et al.",
        2025,
        "https://arxiv.org/abs/2508.04424",
        ("multimodal",),
    ),
    Citation(
        20,
        "rgb",
        "Benchmarking Large Language Models in Retrieval-Augmented Generation",
        "Jiawei Chen et al.",
        2023,
        "https://arxiv.org/abs/2309.01431",
        ("robustness",),
    ),
    Citation(
        21,
        "backdoor_dpr",
        "Backdoor Attacks on Dense Retrieval via Public and Unintentional Triggers",
        "Quanyu Long et al.",
        2024,
        "https://arxiv.org/abs/2402.13532",
        ("attack",),
    ),
    Citation(
        22,
        "event_driven",
        "Event-driven Real-time Retrieval in Web Search",
        "Nan Yang et al.",
        2023,
        "https://arxiv.org/abs/2312.00372",
        ("feedback",),
    ),
    Citation(
        23,
        "multi_grained",
        "Composed Image Retrieval with Text Feedback via Multi-grained Uncertainty Regularization",
        "Yiyang Chen et al.",
        2022,
        "https://arxiv.org/abs/2211.07394",
        ("loss",),
    ),
    Citation(
        24,
        "ar2",
        "Adversarial Retriever-Ranker for dense text retrieval",
        "Hang Zhang et al.",
        2021,
        "https://arxiv.org/abs/2110.03611",
        ("teacher", "negative sampler"),
    ),
    Citation(
        25,
        "genre",
        "Autoregressive Entity Retrieval",
        "Nicola De Cao et al.",
        2020,
        "https://arxiv.org/abs/2010.00904",
        ("generative retrieval",),
    ),
    Citation(
        26,
        "bad_rag",
        "BadRAG: Identifying Vulnerabilities in Retrieval Augmented Generation of Large Language Models",
        "Jiaqi Xue et al.",
        2024,
        "https://arxiv.org/abs/2406.00083",
        ("attack",),
    ),
    Citation(
        27,
        "ccp",
        "Unsupervised Context Aware Sentence Representation Pretraining for Multi-lingual Dense Retrieval",
        "Ning Wu et al.",
        2022,
        "https://arxiv.org/abs/2206.03281",
        ("loss",),
    ),
    Citation(
        28,
        "videolights",
        (
            "VideoLights: Feature Refinement and Cross-Task Alignment Transformer for Joint Video Highlight "
            "Detection and Moment Retrieval"
        ),
        "Dhiman Paul et al.",
        2024,
        "https://arxiv.org/abs/2412.01558",
        ("multimodal",),
    ),
    Citation(
        29,
        "u_marvel",
        (
            "U-MARVEL: Unveiling Key Factors for Universal Multimodal Retrieval via Embedding Learning with "
            "MLLMs"
        ),
        "Xiaojie Li et al.",
        2025,
        "https://arxiv.org/abs/2507.14902",
        ("stages",),
    ),
    Citation(
        30,
        "slap",
        "SLAP: Siamese Language-Audio Pretraining Without Negative Samples for Music Understanding",
        "Julien Guinot et al.",
        2025,
        "https://arxiv.org/abs/2506.17815",
        ("loss",),
    ),
    Citation(
        31,
        "scaling_note",
        "ScalingNote: Scaling up Retrievers with Large Language Models for Real-World Dense Retrieval",
        "Suyuan Huang et al.",
        2024,
        "https://arxiv.org/abs/2411.15766",
        ("teacher",),
    ),
    Citation(
        32,
        "mistral_splade",
        "Mistral-SPLADE: LLMs for better Learned Sparse Retrieval",
        "Meet Doshi et al.",
        2024,
        "https://arxiv.org/abs/2408.11119",
        ("head",),
    ),
    Citation(
        33,
        "dcd",
        "Dynamic Contrastive Distillation for Image-Text Retrieval",
        "Jun Rao et al.",
        2022,
        "https://arxiv.org/abs/2207.01426",
        ("teacher",),
    ),
    Citation(
        34,
        "codiemb",
        (
            "CoDiEmb: A Collaborative yet Distinct Framework for Unified Representation Learning in "
            "Information Retrieval and Semantic Textual Similarity"
        ),
        "Bowen Zhang et al.",
        2025,
        "https://arxiv.org/abs/2508.11442",
        ("loss", "batch sampler"),
    ),
    Citation(
        35,
        "dcar",
        "Dual Prompt Learning for Adapting Vision-Language Models to Downstream Image-Text Retrieval",
        "Yifan Wang et al.",
        2025,
        "https://arxiv.org/abs/2508.04028",
        ("multimodal",),
    ),
    Citation(
        36,
        "cprd",
        "How to Make Cross Encoder a Good Teacher for Efficient Image-Text Retrieval?",
        "Yuxin Chen et al.",
        2024,
        "https://arxiv.org/abs/2407.07479",
        ("teacher",),
    ),
    Citation(
        37,
        "cfcd",
        "Coarse-to-Fine: Learning Compact Discriminative Representation for Single-Stage Image Retrieval",
        "Yunquan Zhu et al.",
        2023,
        "https://arxiv.org/abs/2308.04008",
        ("loss", "negative sampler"),
    ),
    Citation(
        38,
        "jpq",
        "Jointly Optimizing Query Encoder and Product Quantization to Improve Retrieval Performance",
        "Jingtao Zhan et al.",
        2021,
        "https://arxiv.org/abs/2108.00644",
        ("index",),
    ),
    Citation(
        39,
        "long_context_rag",
        "Long-Context LLMs Meet RAG: Overcoming Challenges for Long Inputs in RAG",
        "Bowen Jin et al.",
        2024,
        "https://arxiv.org/abs/2410.05983",
        ("context for a reader",),
    ),
    Citation(
        40,
        "lg_anna",
        "LG-ANNA-Embedding technical report",
        "Jooyoung Choi et al.",
        2025,
        "https://arxiv.org/abs/2506.07438v1",
        ("false-negative filter", "teacher"),
    ),
    Citation(
        41,
        "dark_side",
        "Dark Side Augmentation: Generating Diverse Night Examples for Metric Learning",
        "Albert Mohwald, Tomas Jenicek, Ondřej Chum",
        2023,
        "https://arxiv.org/abs/2309.16351",
        ("negative sampler",),
    ),
    Citation(
        42,
        "unime_v2",
        "UniME-V2: MLLM-as-a-Judge for Universal Multimodal Embedding Learning",
        "Tiancheng Gu et al.",
        2025,
        "https://arxiv.org/abs/2510.13515",
        ("teacher", "false-negative filter"),
    ),
    Citation(
        43,
        "codefilter",
        "Impact-driven Context Filtering For Cross-file Code Completion",
        "Yanzhou Li et al.",
        2025,
        "https://arxiv.org/abs/2508.05970",
        ("context for a reader",),
    ),
    Citation(
        44,
        "nv_embed",
        "NV-Embed: Improved Techniques for Training LLMs as Generalist Embedding Models",
        "Chankyu Lee et al.",
        2024,
        "https://arxiv.org/abs/2405.17428",
        ("head", "false-negative filter", "stages"),
    ),
    Citation(
        45,
        "eva02_at",
        (
            "EVA02-AT: Egocentric Video-Language Understanding with Spatial-Temporal Rotary Positional "
            "Embeddings and Symmetric Optimization"
        ),
        "Xiaoqi Wang, Yi Wang, Lap-Pui Chau",
        2025,
        "https://arxiv.org/abs/2506.14356",
        ("loss", "head"),
    ),
    Citation(
        46,
        "t2ranking",
        "T2Ranking: A large-scale Chinese Benchmark for Passage Ranking",
        "Xiaohui Xie et al.",
        2023,
        "https://arxiv.org/abs/2304.03679",
        ("data", "metric"),
    ),
    Citation(
        47,
        "image_text",
        "Deep Learning Applied to Image and Text Matching",
        "Afroze Ibrahim Baqapuri",
        2015,
        "https://arxiv.org/abs/1601.03478",
        ("loss", "negative sampler"),
    ),
    Citation(
        48,
        "negative_bias",
        (
            "A Multifaceted Analysis of Negative Bias in Large Language Models through the Lens of "
            "Parametric Knowledge"
        ),
        "Jongyoon Song, Sangwon Yu, Sungroh Yoon",
        2025,
        "https://arxiv.org/abs/2511.10881",
        ("metric",),
    ),
    Citation(
        49,
        "lol",
        (
            "LoL: A Comparative Regularization Loss over Query Reformulation Losses for Pseudo-Relevance "
            "Feedback"
        ),
        "Yunchang Zhu et al.",
        2022,
        "https://arxiv.org/abs/2204.11545",
        ("feedback", "loss"),
    ),
    Citation(
        50,
        "negative_prompt",
        (
            "NegativePrompt: Leveraging Psychology for Large Language Models Enhancement via Negative "
            "Emotional Stimuli"
        ),
        "Xu Wang et al.",
        2024,
        "https://arxiv.org/abs/2405.02814",
        ("context for a reader",),
    ),
    Citation(
        51,
        "claps",
        "Contrastive Learning with Adversarial Perturbations for Conditional Text Generation",
        "Seanie Lee, Dong Bok Lee, Sung Ju Hwang",
        2020,
        "https://arxiv.org/abs/2012.07280",
        ("loss",),
    ),
    Citation(
        52,
        "generative_negatives",
        (
            "Enhancing Multimodal Compositional Reasoning of Visual Language Models with Generative "
            "Negative Mining"
        ),
        "Ugur Sahin et al.",
        2023,
        "https://arxiv.org/abs/2311.03964",
        ("synthetic data", "multimodal"),
    ),
    Citation(
        53,
        "tas_balanced",
        "Efficiently Teaching an Effective Dense Retriever with Balanced Topic Aware Sampling",
        "Sebastian Hofstätter et al.",
        2021,
        "https://arxiv.org/abs/2104.06967",
        ("batch sampler", "teacher"),
    ),
    Citation(
        54,
        "beir_resources",
        "Resources for Brewing BEIR: Reproducible Reference Models and an Official Leaderboard",
        "Ehsan Kamalloo et al.",
        2023,
        "https://arxiv.org/abs/2306.07471",
        ("metric", "data"),
    ),
    Citation(
        55,
        "seismic",
        "Efficient Inverted Indexes for Approximate Retrieval over Learned Sparse Representations",
        "Sebastian Bruch et al.",
        2024,
        "https://arxiv.org/abs/2404.18812",
        ("index",),
    ),
    Citation(
        56,
        "sycl",
        (
            "Beyond Contrastive Learning: Synthetic Data Enables List-wise Training with Multiple Levels of "
            "Relevance"
        ),
        "Reza Esfandiarpoor et al.",
        2025,
        "https://arxiv.org/abs/2503.23239",
        ("synthetic data", "loss"),
    ),
)


def citation(name: str) -> Citation:
    """The row of that name; TrichromeError, with the nearest names, where there is none."""
    rows = {row.name: row for row in CITATIONS}
    if name not in rows:
        near = ", ".join(get_close_matches(name.lower(), rows, cutoff=0))
        raise TrichromeError(f"no paper is called {name!r}; the nearest names are {near}")
    return rows[name]
