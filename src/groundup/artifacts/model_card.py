"""The model card: README.md in the form of the Hugging Face hub, for exports and for the report.

Both cards have the front matter, the title and the code of use in common. An export adds the sizes
of the model, counted from its configuration; the report adds the figures of the run.
"""

from __future__ import annotations

_LOAD = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS FOLDER")
model = AutoModelForCausalLM.from_pretrained("PATH OF THIS FOLDER")
"""

# Training puts an end-of-text token before every document, so a prompt follows one too.
CONTINUE_CODE = f"""```python
{_LOAD}prompt = tokenizer(tokenizer.eos_token + "The", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0]))
```"""

ANSWER_CODE = f"""```python
{_LOAD}turns = [{{"role": "user", "content": "Hello"}}]
prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, \
return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0, \
prompt["input_ids"].shape[1] :]))
```"""


def model_card(name: str, body: str, license: str = "") -> str:
    """Return a model card: title, Markdown below it, and the license as a YAML value, if any."""
    head = ["library_name: transformers", "pipeline_tag: text-generation"]
    if license:
        head.append(f"license: {license}")
    front_matter = "\n".join(head)
    return f"---\n{front_matter}\n---\n\n# {name}\n\n{body}"
