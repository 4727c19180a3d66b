"""A convolutional autoencoder with strides in place of pooling and upsampling: a builder to copy.

The code is 4 × 4 × 8, as that of the built-in conv model.
"""

import keras
from keras import layers


def build(filters: int = 12, activation: str = "relu") -> keras.Model:
    """Images (28, 28, 1) in [0, 1] to the same; each keyword argument is a hyperparameter.

    Args:
        filters: of the outer convolutions.
        activation: of all but the last layer.
    """
    settings = {"padding": "same", "activation": activation}
    image = keras.Input((28, 28, 1))
    x = layers.Conv2D(filters, 3, strides=2, **settings)(image)  # 14 × 14
    x = layers.Conv2D(filters, 3, strides=2, **settings)(x)  # 7 × 7
    x = layers.Conv2D(8, 3, strides=2, **settings)(x)  # the code, 4 × 4
    x = layers.Conv2DTranspose(filters, 3, strides=2, **settings)(x)  # 8 × 8
    x = layers.Cropping2D(((0, 1), (0, 1)))(x)
    x = layers.Conv2DTranspose(filters, 3, strides=2, **settings)(x)
    x = layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid")(x)
    return keras.Model(image, x)
