"""Presidio's pattern recognizers on lines of JSON texts, for pii.py to compare with; runs in its own interpreter."""

import json
import sys
import time

import tldextract
from presidio_analyzer import predefined_recognizers as known

RECOGNIZERS = {
    "EMAIL_ADDRESS": lambda: known.EmailRecognizer(),
    "PHONE_NUMBER": lambda: known.PhoneRecognizer(supported_regions=("US", "JP", "KR")),
    "CREDIT_CARD": lambda: known.CreditCardRecognizer(),
    "IBAN_CODE": lambda: known.IbanRecognizer(),
    "IP_ADDRESS": lambda: known.IpRecognizer(),
    "US_SSN": lambda: known.UsSsnRecognizer(),
    "KR_RRN": lambda: known.KrRrnRecognizer(),
    "KR_FRN": lambda: known.KrFrnRecognizer(),
    "KR_BRN": lambda: known.KrBrnRecognizer(),
}


def main() -> None:
    """Answer each line, a JSON list of texts, with the CPU seconds taken and the findings in each text.

    The recognizers are called without the analyzer around them, which would only add to their time.
    """
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())  # the list that comes with it, not the network
    recognizers = {kind: make() for kind, make in RECOGNIZERS.items()}
    for line in sys.stdin:
        texts = json.loads(line)
        started = time.process_time()
        found = [
            [result for kind, recognizer in recognizers.items() for result in recognizer.analyze(text, [kind], None)]
            for text in texts
        ]
        seconds = time.process_time() - started
        rows = [[(result.start, result.end, result.entity_type) for result in results] for results in found]
        print(json.dumps([seconds, rows]), flush=True)


if __name__ == "__main__":
    main()
