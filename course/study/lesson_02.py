"""What is said about lesson 2: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_heads.py"  # a learner's own, of --template

QUESTIONS = (
    Question("one-head", "one-average", "A token has to fetch the contents of two items. One head is 32 "
             "numbers wide, each content 8. Can one head do it?", (
        Answer("Yes: 16 of its 32 numbers are enough.",
               "A weight multiplies the whole value. So the head can't take some numbers from one item "
               "and others from another."),
        Answer("No: it takes one mean of the items, and a mean can't be separated again.",
               "The more it takes from one item, the less it takes from the other. Its error stays near "
               "0.5; the error of two heads is far below."),
        Answer("Yes, but it takes longer to learn.",
               "More training doesn't help: one mean can't hold both. The last step of the lesson lets "
               "you try ten times as many steps.")), 1,
             "the error of one head stays near 0.5"),
    Question("more-heads", "parameters-do-not-depend-on-heads", "d_model stays 64. You take 16 heads "
             "instead of 4. How does the number of parameters change?", (
        Answer("It is four times as large: each head has its own matrices.",
               "Each head has its own matrices, but they are a quarter as wide."),
        Answer("It stays the same.",
               "With more heads, each is narrower: together their matrices are D × D, for any H."),
        Answer("It is smaller, because narrow matrices are smaller.",
               "Each matrix is a quarter as large, but there are four times as many.")), 1,
             "for every H there are 4·(D² + D) parameters"),
    Question("each-a-head", "what-heads-learn", "Four heads learn to fetch four words for every word. "
             "Does each head take one of the four?", (
        Answer("Always: that is the simplest solution.",
               "In some runs a head divides its weight between two relations, and the task is "
               "still solved."),
        Answer("Never: all heads do a bit of everything.",
               "In some runs there is a head for each relation."),
        Answer("Only in some runs: it depends on the seed.",
               "Nearly all runs solve the task, but nothing in the loss asks for one head per relation.")), 2,
             "some of the runs have a head for each relation"),
)

TERMS = (
    Term("head", "",
         "Each of these attentions is called a head.", ("heads",)),
    Term("projection", "",
         "A projection is a linear map, x·W + b; the paper's projections have no bias b, but ours do, as "
         "in PyTorch.", ("projections",)),
    Term("d_model", "",
         "D (d_model) is the width of a token's vector, H the number of heads, and K (d_k) = D / H the "
         "width of one head."),
    Term("dropout", "dropout",
         "In training, each weight is set to 0 with probability p and the others are divided by 1 − p."),
)

EXERCISES = {
    "MultiHeadAttention": Exercise(2, 40,
        guide={"__init__": ["ValueError if d_model does not split into n_heads",
                            "four nn.Linear(d_model, d_model)"],
               "forward": ["project query, key and value", "split each into heads, (B, H, L, K)",
                           "lesson 1's attention, with the mask, and with dropout only while training",
                           "join the heads again, (B, L, D)", "the last projection"],
               "weights": ["project and split query and key", "lesson 1's attention_weights, with the mask"]},
        hints={
            "attends_to_itself": (
                "Project, cut every token into heads, let each head attend, join the heads, project once more.",
                "Concat(head_1, …, head_H)·W^O, head_h = Attention(Q·W_h^Q, K·W_h^K, V·W_h^V)",
                "x.view(batch, length, ___, ___).transpose(___, ___)"),
            "attends_to_another": (
                "Queries come from one sequence, keys and values from another, each through its own projection.",
                "Attention(query·W^Q, key·W^K, value·W^V), (B, T, D) and (B, S, D)",
                "self.project_query(___), self.project_key(___), self.project_value(___)"),
            "takes_both_masks": (
                "Leave the mask as it is: it broadcasts to (B, H, T, S).",
                "(T, S), (B, 1, T, S) and (B, H, T, S) all broadcast",
                "scaled_dot_product_attention(queries, keys, values, ___)"),
            "tells_its_weights": (
                "Compute lesson 1's weights from the projected and split queries and keys.",
                "softmax(Q_h·K_hᵀ / √d_k) for every head h",
                "attention_weights(self.split(___), self.split(___), ___)"),
            "fits_other_sizes": (
                "Sizes come from the arguments and from the tensors; none is written into the code.",
                "d_k = d_model / n_heads",
                "batch, length, d_model = x.shape"),
            "learns_like_pytorch": (
                "forward() has to compute everything with PyTorch operations, and use every projection once.",
                "the gradient flows through all four projections",
                "no .detach(), .data or torch.no_grad() around ___"),
            "passes_gradients_on": (
                "The input feeds queries, keys and values: its gradient has three parts.",
                "∂L/∂x = through Q + through K + through V",
                "nothing of query, key and value is detached: ___"),
            "drops_weights_in_training": (
                "In training some weights are set to 0; in eval mode none are.",
                "dropout p while self.training, otherwise 0",
                "self.dropout if ___ else 0.0"),
            "refuses_uneven_heads": (
                "12 numbers split into 3 heads of 4; 30 don't split into 4.",
                "d_model mod n_heads = 0",
                'if d_model % ___: raise ValueError(f"d_model {___} does not split into {___} heads")'),
        }),
}
