#!/usr/bin/env python3
"""A remote tool: counts the words of a text. It wants AMQP_URL, and GATHERING_PREFIX if that is not `gathering`."""
import json
import os

import pika  # pip install pika, or apt-get install python3-pika


def count_words(call):
    """The output; what it raises says whether another attempt may succeed."""
    if call["input"].get("unlucky") and call["attempt"] == 1:
        raise ConnectionError("the first attempt of the unlucky fails")
    words = call["input"]["text"].split()
    if not words:
        raise ValueError("the text has no words")
    return {"words": len(words), "longest": max(words, key=len)}


def answer(channel, method, properties, body):
    try:
        reply = {"output": count_words(json.loads(body))}
    except OSError as error:
        reply = {"error": {"kind": "retryable", "message": str(error), "retry_after": "100ms"}}
    except Exception as error:
        reply = {"error": {"kind": "permanent", "message": str(error)}}
    about = pika.BasicProperties(
        correlation_id=properties.correlation_id, content_type="application/json", delivery_mode=2
    )
    # Returns once the broker has the reply. Only then is the call acked: whoever dies before that loses nothing.
    channel.basic_publish("", properties.reply_to, json.dumps(reply), about, mandatory=True)
    channel.basic_ack(method.delivery_tag)


connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.confirm_delivery()
channel.basic_qos(prefetch_count=1)  # how many calls it works on at a time
channel.basic_consume(os.environ.get("GATHERING_PREFIX", "gathering") + ".tool.count-words", answer)
channel.start_consuming()
